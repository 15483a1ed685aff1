"""Turns by 90, 180 and 270 degrees, for images without an upper side: from above, or through a microscope."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors


def drawn_quarters(probability: float) -> int:
    """1, 2 or 3 with this probability, else 0. At 0 nothing is drawn, so that other random numbers stay as they are."""
    if probability <= 0 or torch.rand(()) >= probability:
        return 0
    return int(torch.randint(1, 4, ()))


def turned(values: Tensor, quarters: int) -> Tensor:
    """An image or masks [..., H, W], or boxes (tv_tensors, XYXY), turned anticlockwise by so many quarters."""
    if isinstance(values, tv_tensors.BoundingBoxes):
        return _turned_boxes(values, quarters)
    return tv_tensors.wrap(torch.rot90(values, quarters, (-2, -1)), like=values)


def _turned_boxes(boxes: tv_tensors.BoundingBoxes, quarters: int) -> tv_tensors.BoundingBoxes:
    sides, (height, width) = boxes.as_subclass(Tensor), boxes.canvas_size
    for _ in range(quarters % 4):
        x1, y1, x2, y2 = sides.unbind(-1)
        sides = torch.stack([y1, width - x2, y2, width - x1], dim=-1)
        height, width = width, height
    return tv_tensors.BoundingBoxes(sides, format="XYXY", canvas_size=(height, width))
