"""A tile of a large image for training: where it lies, and what of the objects is in it.

All draws are from torch's global generator, which the data set seeds per sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from piip.data.detection.augmentation import RandomTile
from piip.structures import Size

TRIES = 10
"""places that are looked at for one without an object"""


class Place(NamedTuple):
    """A rectangle of an image's pixels, right and bottom not included."""

    left: int
    top: int
    right: int
    bottom: int


class Cut(NamedTuple):
    """What is in a tile: the arguments of the transforms, in pixels of the tile."""

    image: Tensor
    """uint8 [3, h, w]"""
    boxes: Tensor
    """[n, 4], cut at the tile's borders"""
    labels: Tensor
    """[n]"""
    masks: Callable[[list[int]], Tensor] | None
    """uint8 [k, h, w] of the objects at k positions"""
    size: Size
    place: Place


def random_cut(
    image: Tensor, boxes: Tensor, labels: Tensor, masks: Callable[[list[int]], Tensor] | None, settings: RandomTile
) -> Cut:
    """A tile of an image uint8 [3, H, W] with boxes [N, 4], labels [N] and masks (of N positions) in its pixels.

    Objects of which less than `settings.keep` is in the tile are gone.
    """
    left, top, right, bottom = place = random_place((image.shape[-2], image.shape[-1]), boxes, settings)
    shares = shares_within(boxes, place)
    kept = ((shares > 0) & (shares >= settings.keep)).nonzero()[:, 0]
    corner = torch.tensor([left, top, left, top], dtype=boxes.dtype)
    limits = torch.tensor([right - left, bottom - top] * 2, dtype=boxes.dtype)
    inside = torch.minimum((boxes[kept] - corner).clamp(min=0), limits)
    size = (bottom - top, right - left)
    chosen = kept.tolist()

    def masks_inside(positions: list[int]) -> Tensor:
        assert masks is not None
        found = torch.empty((len(positions), *size), dtype=torch.uint8)
        for mask, position in zip(found, positions, strict=True):  # one whole mask of the photo at a time
            mask[:] = masks([chosen[position]])[0, top:bottom, left:right]
        return found

    part = image[:, top:bottom, left:right]
    return Cut(part, inside, labels[kept], None if masks is None else masks_inside, size, place)


def random_place(size: Size, boxes: Tensor, settings: RandomTile) -> Place:
    """A tile of an image of `size` around one of its boxes [N, 4] or, at times, where none of them is.

    Around means that all of the box is in the tile, or as much as fits. Boxes are left out of which `settings.keep` is
    more than fits.
    """
    height, width = min(size[0], settings.side), min(size[1], settings.side)
    room = size[0] - height, size[1] - width
    sides = boxes[:, 2:] - boxes[:, :2]
    most = torch.tensor([width, height], dtype=boxes.dtype)
    around = boxes[(torch.minimum(sides, most) / sides.clamp(min=1e-6)).prod(dim=1) >= settings.keep]
    if not len(around) or torch.rand(()) < settings.empty:
        for _ in range(TRIES):
            top, left = _integer(0, room[0]), _integer(0, room[1])
            place = Place(left, top, left + width, top + height)
            if not len(around) or not (shares_within(boxes, place) > 0).any():
                return place
    x1, y1, x2, y2 = around[_integer(0, len(around) - 1)].tolist()
    top, left = _start(y1, y2, height, room[0]), _start(x1, x2, width, room[1])
    return Place(left, top, left + width, top + height)


def shares_within(boxes: Tensor, place: Place) -> Tensor:
    """The part of each box's area [N, 4] that is in a rectangle: [N], 0 to 1.

    >>> shares_within(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), Place(5, 0, 20, 20)).tolist()
    [0.5]
    """
    low = torch.maximum(boxes[:, :2], torch.tensor(place[:2], dtype=boxes.dtype))
    high = torch.minimum(boxes[:, 2:], torch.tensor(place[2:], dtype=boxes.dtype))
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    return ((high - low).clamp(min=0) / sides).prod(dim=1)


def _start(low: float, high: float, length: int, room: int) -> int:
    """Where a tile of `length` begins, from 0 to `room`, that holds what is between `low` and `high`, or lies in it."""
    first, last = sorted((math.floor(low), math.ceil(high) - length))
    return _integer(min(max(first, 0), room), min(max(last, 0), room))


def _integer(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))
