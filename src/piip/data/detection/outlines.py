"""Outlines of objects: checked before any C code sees them, then rasterised with COCO's own rules.

COCO's rasteriser trusts its input: wild coordinates and wrong run lengths crash the process. So whatever a
file holds passes `checked_outline` first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from piip.data.detection.annotations import Box, Segmentation
from piip.data.run_lengths import RunLengthError, checked_runs, lengths_of
from piip.structures import Size

MARGIN = 1.0
"""pixels that a polygon may reach beyond the image before it is cut there"""

MIN_AREA = 1e-3
"""square pixels; below, a polygon's points lie on one line"""


def checked_outline(value: Any, size: Size) -> tuple[Segmentation | None, list[str]]:
    """A usable outline for an image of `size`, and the kinds of faults that were met.

    None where nothing usable remains. No outline at all (missing, None, []) is not a fault.
    """
    if value is None or value in ([], {}, ""):
        return None, []
    try:
        if isinstance(value, dict):
            return checked_runs(value, size), []
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            return checked_runs(value[0], size), []
        if isinstance(value, list):
            return _checked_polygons(value, size)
    except RunLengthError as error:
        return None, [str(error)]
    return None, ["outline that is neither polygons nor run lengths"]


def outline_bounds(outline: Segmentation, size: Size) -> Box:
    """The smallest box around a checked outline, within the image."""
    if isinstance(outline, dict):
        x, y, width, height = (float(v) for v in _mask_api().toBbox(_compressed(outline, size)))
        return x, y, x + width, y + height
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in outline])
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return max(float(x1), 0.0), max(float(y1), 0.0), min(float(x2), size[1]), min(float(y2), size[0])


def outline_area(outline: Segmentation) -> float:
    """Square pixels inside a checked outline; overlaps between its polygons count twice."""
    if isinstance(outline, dict):
        return float(sum(lengths_of(outline)[1::2]))
    return sum(_polygon_area(np.reshape(polygon, (-1, 2))) for polygon in outline)


def rasterise(outline: Segmentation, size: Size) -> np.ndarray:
    """The mask of a checked outline: uint8 [H, W] of 0 and 1."""
    return _mask_api().decode(_compressed(outline, size))


def rectangle(box: Box) -> Segmentation:
    """The outline of a box."""
    x1, y1, x2, y2 = box
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def _compressed(outline: Segmentation, size: Size) -> dict[str, Any]:
    api = _mask_api()
    if isinstance(outline, dict):
        return outline if isinstance(outline["counts"], str) else api.frPyObjects(outline, *size)
    return api.merge(api.frPyObjects(outline, *size))


def _mask_api() -> Any:
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise ImportError('masks need faster-coco-eval: pip install "piip[train]"') from error
    return mask


def _checked_polygons(value: list[Any], size: Size) -> tuple[Segmentation | None, list[str]]:
    polygons, faults = [], []
    for part in _parts(value):
        polygon, fault = _checked_polygon(part, size)
        if polygon is not None:
            polygons.append(polygon)
        if fault is not None:
            faults.append(fault)
    return polygons or None, faults


def _parts(value: list[Any]) -> list[Any]:
    """The polygons of a list: also of a single flat polygon, and of a list of (x, y) points."""
    if not isinstance(value[0], list):
        return [value]
    pairs = len(value) >= 3 and all(isinstance(part, list) and len(part) == 2 for part in value)
    return [value] if pairs else value


def _checked_polygon(part: Any, size: Size) -> tuple[list[float] | None, str | None]:
    """One polygon, cut to the image and its margin, and what was wrong with it."""
    try:
        values = np.asarray(part, dtype=np.float64).ravel()
    except (TypeError, ValueError, OverflowError):
        return None, "polygon with something else than numbers"
    if values.size % 2:
        return None, "polygon with an odd number of coordinates"
    if values.size < 6:
        return None, "polygon with fewer than three points"
    points = values.reshape(-1, 2)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    if not math.isfinite(left + top + right + bottom):
        return None, "polygon with NaN or infinite coordinates"
    low, high = np.array([-MARGIN, -MARGIN]), np.array([size[1] + MARGIN, size[0] + MARGIN])
    fault = None
    if min(left, top) < -MARGIN or right > high[0] or bottom > high[1]:
        points, fault = cut_polygon(points, low, high), "polygon that reaches outside the image (cut)"
        if len(points) < 3:
            return None, "polygon outside the image"
    if _polygon_area(points) < MIN_AREA:
        return None, "polygon without an area"
    return points.ravel().tolist(), fault


def cut_polygon(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The part of a polygon [P, 2] within a rectangle, cut along its four sides one after the other; maybe no point."""
    for axis, bound, sign in ((0, low[0], 1), (0, high[0], -1), (1, low[1], 1), (1, high[1], -1)):
        kept: list[np.ndarray] = []
        for here, following in zip(points, np.roll(points, -1, axis=0), strict=True):
            inside, next_inside = sign * here[axis] >= sign * bound, sign * following[axis] >= sign * bound
            if inside:
                kept.append(here)
            if inside != next_inside:
                share = (bound - here[axis]) / (following[axis] - here[axis])
                crossing = here + share * (following - here)
                crossing[axis] = bound
                kept.append(crossing)
        points = np.array(kept).reshape(-1, 2)
        if not len(points):
            break
    return np.clip(points, low, high)


def _polygon_area(points: np.ndarray) -> float:
    x, y = (points - points[0]).T  # the term between the last point and the first, which is (0, 0) now, vanishes
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:]))) / 2
