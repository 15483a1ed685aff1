"""A training batch as one picture: its images side by side, as the network sees them, with their targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from piip.config import Preprocess
from piip.structures import Batch, Size

MOSAIC_IMAGES = 16
MOSAIC_SIDE = 1920
"""pixels, at most"""
TILE_SIDE = 640
"""pixels to which small images of a mosaic are enlarged, about, so that labels don't cover them"""
SHAPE = 1.6
"""width of a mosaic over its height, about, as of a screen"""
UNLIKE = 0.2
"""what a mosaic costs that is e times as wide, or as high, where one that is nothing but empty places costs 1"""


def mosaic(batch: Batch, preprocess: Preprocess, draw: Callable[[np.ndarray, Any, Size], np.ndarray]) -> np.ndarray:
    """The first 16 images of `batch` side by side, [H, W, 3] uint8.

    Padding stays visible, in the grey or colour that zero stands for after normalising, but for what all images have.

    Args:
        batch: on any device.
        preprocess: what normalised it.
        draw: from an image as it will be seen (uint8 [h, w, 3]), its target, and the size (H, W) of the part of the
            batch of which it is an enlargement or reduction, to the image with the target on it.
    """
    count = min(len(batch.images), MOSAIC_IMAGES)
    height, width = (max(size[side] for size in batch.image_sizes[:count]) for side in (0, 1))
    columns = best_columns(count, width / height)
    rows = math.ceil(count / columns)
    enlarged = max(1, round(TILE_SIDE / max(height, width)))  # whole pixels, so that they stay what they are
    scale = min(enlarged, MOSAIC_SIDE / max(rows * height, columns * width))
    tile = max(1, round(height * scale)), max(1, round(width * scale))
    pictures = np.full((rows * tile[0], columns * tile[1], 3), 255, dtype=np.uint8)
    for i in range(count):
        pixels = _shown(batch.images[i, :, :height, :width], preprocess, tile)
        target = batch.targets[i]
        picture = draw(pixels, target.to("cpu") if hasattr(target, "to") else target, (height, width))
        top, left = i // columns * tile[0], i % columns * tile[1]
        pictures[top : top + tile[0], left : left + tile[1]] = picture
    return pictures


def best_columns(count: int, shape: float) -> int:
    """Of a mosaic of `count` images, each `shape` times as wide as high: few empty places, and not long and narrow.

    >>> [best_columns(count, 4 / 3) for count in (1, 2, 3, 4, 5, 8, 16)]
    [1, 2, 3, 2, 3, 4, 4]
    """

    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        empty = 1 - count / (columns * rows)
        return empty + UNLIKE * abs(math.log(columns * shape / rows / SHAPE))

    return min(range(1, count + 1), key=cost)


def stretched(maps: Tensor, size: Size, new_size: Size) -> Tensor:
    """Maps [N, h, w] that may end where an image's padding to `size` begins, as [N, *new_size] (nearest, zeros)."""
    maps = F.pad(maps, (0, size[1] - maps.shape[2], 0, size[0] - maps.shape[1]))
    return F.interpolate(maps[None].float(), new_size, mode="nearest-exact")[0]


def _shown(image: Tensor, preprocess: Preprocess, size: Size) -> np.ndarray:
    """The network's input [3, H, W] as an image uint8 [*size, 3]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    pixels = (image.detach().cpu().float() * std + mean).round().clamp(0, 255)
    if size[0] < image.shape[-2]:
        pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0].round().clamp(0, 255)
    else:
        pixels = F.interpolate(pixels[None], size, mode="nearest-exact")[0]
    return pixels.byte().permute(1, 2, 0).numpy()
