"""Boxes as offsets from other boxes, and anchors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from piip.ops.constants import constants
from piip.structures import Size

MAX_LOG_RATIO = math.log(1000 / 16)
"""a decoded side is at most this (in logarithm) larger or smaller than the reference box's"""
RPN_STDS = (1.0, 1.0, 1.0, 1.0)
BOX_STDS = (0.1, 0.1, 0.2, 0.2)


def encode(boxes: Tensor, references: Tensor, stds: Sequence[float]) -> Tensor:
    """Offsets [N, 4] (dx, dy, dw, dh) that turn `references` [N, 4] into `boxes` [N, 4], divided by `stds`."""
    centre, side = _centre_and_side(boxes.float())
    reference_centre, reference_side = _centre_and_side(references.float())
    deltas = torch.cat(((centre - reference_centre) / reference_side, (side / reference_side).log()), dim=-1)
    return deltas / constants(stds, deltas.device)


def decode(deltas: Tensor, references: Tensor, stds: Sequence[float], image_size: Size) -> Tensor:
    """Boxes [N, K, 4] from offsets [N, K, 4] to `references` [N, 4], clipped to the image."""
    return clipped(torch.cat(corners(deltas, references, stds), dim=-1), image_size)


def clipped(boxes: Tensor, image_size: Size) -> Tensor:
    """Boxes [..., 4] without what is outside the image."""
    height, width = image_size
    return torch.stack((boxes[..., ::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)), dim=-1).flatten(-2)


def corners(deltas: Tensor, references: Tensor, stds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """As `decode`, not clipped: top left and bottom right corners [N, K, 2] (x, y)."""
    deltas = deltas.float() * constants(stds, deltas.device)
    centre, side = _centre_and_side(references.float()[:, None])
    new_centre = centre + deltas[..., :2] * side
    half = side * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return new_centre - half, new_centre + half


def _centre_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return (top_left + bottom_right) / 2, bottom_right - top_left


def anchors(
    grid: Size, stride: float, scale: float, ratios: Sequence[float], device: torch.device | None = None
) -> Tensor:
    """[H*W*R, 4]: the R shapes of one level around each multiple of the stride, row by row."""
    heights = constants([stride * scale * math.sqrt(ratio) for ratio in ratios], device)
    widths = constants([stride * scale / math.sqrt(ratio) for ratio in ratios], device)
    shapes = torch.stack((-widths, -heights, widths, heights), dim=-1) / 2  # [R, 4]
    y = torch.arange(grid[0], device=device) * stride
    x = torch.arange(grid[1], device=device) * stride
    xy = torch.stack((x.repeat(grid[0]), y.repeat_interleave(grid[1])), dim=-1)  # [H*W, 2]
    return (xy.repeat(1, 2)[:, None] + shapes).reshape(-1, 4)


def scale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Boxes [..., 4] of an image of `from_size` in the pixels of the same image at `to_size`."""
    y, x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return boxes * constants((x, y), boxes.device, boxes.dtype).repeat(2)
