"""What the transforms of several tasks have in common: sizes within limits, the recipes' resize, normalising."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from piip.config import Preprocess
from piip.structures import Size, size_of


def keep_ratio_size(size: Size, long_side: float, short_side: int) -> Size:
    """The largest (height, width) with the same shape whose sides stay within both limits; at least 1 x 1.

    >>> keep_ratio_size((480, 640), long_side=1120, short_side=672)
    (672, 896)
    """
    scale = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def size_in_tests(size: Size, preprocess: Preprocess) -> Size:
    """(height, width) that evaluation and prediction give an image of `size`."""
    if not preprocess.resize_in_tests:
        return size
    return keep_ratio_size(size, preprocess.test_long_side, preprocess.short_side)


def resized(image: Tensor, size: Size) -> Tensor:
    """An image [..., H, W] (or tv_tensor) at another size: bilinear without antialiasing, as everywhere in the
    reference's recipes; masks by nearest neighbour."""  # fmt: skip
    return functional.resize(image, list(size), v2.InterpolationMode.BILINEAR, antialias=False)


def resize_keep_ratio(image: Tensor, long_side: float, short_side: int) -> Tensor:
    """An image [..., H, W] (or tv_tensor) `resized` to `keep_ratio_size`."""
    height, width = functional.get_size(image)
    return resized(image, keep_ratio_size((height, width), long_side, short_side))


def normalised(image: Tensor, preprocess: Preprocess) -> Tensor:
    """RGB values 0..255 [3, H, W] to float32 with the model's mean and standard deviation taken out."""
    values = image.to(torch.float32, copy=True)
    return functional.normalize(values, list(preprocess.mean), list(preprocess.std), inplace=True)


def network_input(image: Tensor, preprocess: Preprocess, size: Size | None = None) -> Tensor:
    """uint8 [3, H, W] to float32 [3, h, w]: resized with its shape kept, and normalised.

    `size` is the photo's, of which `image` may be less than all pixels (`decode.decode_for`).
    """
    return normalised(resized(image, size_in_tests(size or size_of(image), preprocess)), preprocess)
