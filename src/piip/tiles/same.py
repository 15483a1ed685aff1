"""Which objects of two tiles are the same, judged by the part of the image that both tiles see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from piip.data.object_masks import Crop, crop_of_runs
from piip.tiles.found import MARGIN, Found

DUPLICATE = 0.5
"""intersection over union, in what both tiles see, from which on two are one object seen twice"""
CONTINUATION = 0.15
"""intersection over the smaller one from which on two parts that are cut at facing borders may be one object: boxes of
a slanted object have little in common there"""


class Pair(NamedTuple):
    """Two objects of one class from different tiles that may be one."""

    first: int
    second: int
    iou: float
    """in what both tiles see"""
    goes_on: bool
    """whether each may be the other's continuation beyond its tile's border"""


def pairs(found: Found) -> list[Pair]:
    """All pairs that are the same object, or may be parts of one."""
    by_tile = [np.flatnonzero(found.tile == tile) for tile in np.unique(found.tile)]
    cut = found.cut
    kept: list[Pair] = []
    for position, first in enumerate(by_tile):
        for second in by_tile[position + 1 :]:
            kept += _pairs_of_tiles(found, cut, first, second)
    return kept


def _pairs_of_tiles(found: Found, cut: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[Pair]:
    a, b = found.tiles[first[0]], found.tiles[second[0]]
    start, end = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    if (end < start).any():
        return []
    # Where tiles share (nearly) nothing, only what both cut tells of the other, by how it lies along their border.
    wide = [axis for axis in (0, 1) if end[axis] - start[axis] > 2 * MARGIN * (a[axis + 2] - a[axis])]
    if not wide:
        return []
    facing = _facing(cut[first], cut[second], a, b)
    one, other = (np.clip(found.boxes[part], np.tile(start, 2), np.tile(end, 2)) for part in (first, second))
    iou, ios = _overlaps(one, other, wide)
    same = found.labels[first][:, None] == found.labels[second]
    twice = (iou >= DUPLICATE) if len(wide) == 2 else np.zeros_like(facing)
    rows, columns = np.nonzero(same & (twice | (facing & (ios >= CONTINUATION))))
    candidates = [
        Pair(int(first[i]), int(second[j]), float(iou[i, j]), bool(facing[i, j]))
        for i, j in zip(rows, columns, strict=True)
    ]
    if found.masks is None or len(wide) < 2:
        return candidates
    area = (int(start[0]), int(start[1]), int(end[0]), int(end[1]))
    return [pair for candidate in candidates if (pair := _by_masks(found, candidate, area)) is not None]


def _facing(first: np.ndarray, second: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N, M] bool from whether N objects of tile `a` and M of tile `b` are cut, at left, top, right, bottom [*, 4].

    Whether both are cut at the border that is towards the other tile.
    """
    facing = np.zeros((len(first), len(second)), dtype=bool)
    for axis in (0, 1):
        if a[axis] != b[axis]:
            near, far = (axis + 2, axis) if a[axis] < b[axis] else (axis, axis + 2)
            facing |= first[:, near][:, None] & second[:, far]
    return facing


def _overlaps(one: np.ndarray, other: np.ndarray, axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union and over the smaller, [N, M] each, of boxes [N, 4] and [M, 4] along some axes."""
    shared = np.ones((len(one), len(other)))
    mine, theirs = np.ones((len(one), 1)), np.ones((1, len(other)))
    for axis in axes:
        low = np.maximum(one[:, axis][:, None], other[:, axis])
        high = np.minimum(one[:, axis + 2][:, None], other[:, axis + 2])
        shared = shared * np.maximum(0, high - low)
        mine = mine * (one[:, axis + 2] - one[:, axis])[:, None]
        theirs = theirs * (other[:, axis + 2] - other[:, axis])
    tiny = 1e-9
    return shared / np.maximum(mine + theirs - shared, tiny), shared / np.maximum(np.minimum(mine, theirs), tiny)


def _by_masks(found: Found, pair: Pair, area: tuple[int, int, int, int]) -> Pair | None:
    """The pair judged by its masks in `area` (left, top, right, bottom), or None where they disagree."""
    assert found.masks is not None
    one, other = (_within(crop_of_runs(found.masks.runs[i], found.size), area) for i in (pair.first, pair.second))
    shared, union = int((one & other).sum()), int((one | other).sum())
    smaller = min(int(one.sum()), int(other.sum()))
    iou = shared / max(1, union)
    if iou >= DUPLICATE or (pair.goes_on and smaller and shared / smaller >= CONTINUATION):
        return pair._replace(iou=iou)
    return None


def _within(crop: Crop, area: tuple[int, int, int, int]) -> np.ndarray:
    """The pixels of a mask in `area`, [h, w] bool."""
    left, top, right, bottom = area
    pixels = np.zeros((bottom - top, right - left), dtype=bool)
    height, width = crop.pixels.shape
    y1, y2 = max(top, crop.top), min(bottom, crop.top + height)
    x1, x2 = max(left, crop.left), min(right, crop.left + width)
    if y1 < y2 and x1 < x2:
        pixels[y1 - top : y2 - top, x1 - left : x2 - left] = crop.pixels[
            y1 - crop.top : y2 - crop.top, x1 - crop.left : x2 - crop.left
        ]
    return pixels
