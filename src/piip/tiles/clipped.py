"""Objects cut at the borders of a tile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from piip.data.detection.annotations import Box, CocoObject, Segmentation
from piip.data.detection.outlines import MIN_AREA, cut_polygon, outline_area, outline_bounds
from piip.data.object_masks import Crop, crop_of_runs, runs_of_crop
from piip.data.run_lengths import lengths_of, text_of_runs
from piip.structures import Size
from piip.tiles.grid import Tile

SMALLEST = 1.0
"""pixels that a piece has at least in both directions"""


def share_within(box: Box, tile: Tile) -> float:
    """The part of a box's area that is in a tile, 0 to 1.

    >>> share_within((0.0, 0.0, 10.0, 10.0), Tile(5, 0, 20, 20))
    0.5
    """
    x1, y1, x2, y2 = _inside(box, tile)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(0.0, x2 - x1) * max(0.0, y2 - y1) / area if area > 0 else 0.0


def clipped(obj: CocoObject, tile: Tile) -> CocoObject | None:
    """What of an object is in a tile, in the tile's pixels; None where that is less than a pixel.

    Polygons stay polygons and run lengths run lengths. The box of an object that is cut is the one around what is left
    of its outline, if it has one.
    """
    share = share_within(obj.box, tile)
    box = _moved(_inside(obj.box, tile), tile)
    if not _has_pixels(box):
        return None
    outline = None if obj.segmentation is None else _clipped_outline(obj.segmentation, tile)
    if obj.segmentation is not None and outline is None:
        return None
    if share >= 1:
        return replace(obj, box=box, segmentation=outline)
    if outline is None:
        return replace(obj, box=box, area=obj.area * share)
    around = outline_bounds(outline, (tile.bottom - tile.top, tile.right - tile.left))
    if not _has_pixels(around):
        return None
    return replace(obj, box=around, segmentation=outline, area=outline_area(outline))


def _clipped_outline(outline: Segmentation, tile: Tile) -> Segmentation | None:
    if isinstance(outline, dict):
        return _clipped_runs(outline, tile)
    low, high = np.array(tile[:2], dtype=np.float64), np.array(tile[2:], dtype=np.float64)
    pieces = []
    for polygon in outline:
        cut = cut_polygon(np.reshape(np.asarray(polygon, dtype=np.float64), (-1, 2)), low, high)
        points = _without_spikes(cut - low)
        if len(points) >= 3 and outline_area([points.ravel().tolist()]) >= MIN_AREA:
            pieces.append(points.ravel().tolist())
    return pieces or None


def _without_spikes(points: np.ndarray) -> np.ndarray:
    """A polygon [P, 2] without the lines out and back along a border that a cut leaves, which would widen its box."""
    count = len(points) + 1
    while 2 < len(points) < count:
        count = len(points)
        kept: list[np.ndarray] = []
        for number, point in enumerate(points):
            before, after = kept[-1] if kept else points[-1], points[(number + 1) % count]
            (x1, y1), (x2, y2) = point - before, after - point
            if x1 * y2 != y1 * x2 or x1 * x2 + y1 * y2 > 0:
                kept.append(point)
        points = np.array(kept).reshape(-1, 2)
    return points


def _clipped_runs(outline: dict[str, Any], tile: Tile) -> Segmentation | None:
    height, width = outline["size"]
    whole = crop_of_runs(np.asarray(lengths_of(outline), dtype=np.int64), (height, width))
    rows, columns = whole.pixels.shape
    top, bottom = max(whole.top, tile.top), min(whole.top + rows, tile.bottom)
    left, right = max(whole.left, tile.left), min(whole.left + columns, tile.right)
    part = whole.pixels[max(0, top - whole.top) : max(0, bottom - whole.top),
                        max(0, left - whole.left) : max(0, right - whole.left)]  # fmt: skip
    if not part.any():
        return None
    size: Size = (tile.bottom - tile.top, tile.right - tile.left)
    runs = runs_of_crop(Crop(part, top - tile.top, left - tile.left), size)
    return {"size": list(size), "counts": text_of_runs(runs.astype(np.int64))}


def _inside(box: Box, tile: Tile) -> Box:
    return max(box[0], tile.left), max(box[1], tile.top), min(box[2], tile.right), min(box[3], tile.bottom)


def _moved(box: Box, tile: Tile) -> Box:
    return box[0] - tile.left, box[1] - tile.top, box[2] - tile.left, box[3] - tile.top


def _has_pixels(box: Box) -> bool:
    return min(box[2] - box[0], box[3] - box[1]) >= SMALLEST
