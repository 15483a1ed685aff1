"""Outlines of objects: checked before any C code sees them, then rasterised with COCO's own rules.

COCO's rasteriser trusts its input: wild coordinates and wrong run lengths crash the process. So whatever a
file holds passes `checked_outline` first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from piip.data.detection.annotations import Box, Segmentation
from piip.structures import Size

MARGIN = 1.0
"""pixels that a polygon may reach beyond the image before it is cut there"""

MIN_AREA = 1e-3
"""square pixels; below, a polygon's points lie on one line"""


class OutlineError(ValueError):
    """Run lengths that cannot be used; the message is the kind of fault."""


def checked_outline(value: Any, size: Size) -> tuple[Segmentation | None, list[str]]:
    """A usable outline for an image of `size`, and the kinds of faults that were met.

    None where nothing usable remains. No outline at all (missing, None, []) is not a fault.
    """
    if value is None or value in ([], {}, ""):
        return None, []
    try:
        if isinstance(value, dict):
            return _checked_runs(value, size), []
        if isinstance(value, list):
            return _checked_polygons(value, size)
    except OutlineError as error:
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
        return float(sum(_run_lengths(outline)[1::2]))
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
    checked = [_checked_polygon(part, size) for part in _parts(value)]
    polygons = [polygon for polygon in checked if not isinstance(polygon, str)]
    return polygons or None, [fault for fault in checked if isinstance(fault, str)]


def _parts(value: list[Any]) -> list[Any]:
    """The polygons of a list: also of a single flat polygon, and of a list of (x, y) points."""
    if not isinstance(value[0], list):
        return [value]
    pairs = len(value) >= 3 and all(isinstance(part, list) and len(part) == 2 for part in value)
    return [value] if pairs else value


def _checked_polygon(part: Any, size: Size) -> list[float] | str:
    """One polygon, cut to the image and its margin, or what is wrong with it."""
    try:
        values = np.asarray(part, dtype=np.float64).ravel()
    except (TypeError, ValueError, OverflowError):
        return "polygon with something else than numbers"
    if values.size % 2:
        return "polygon with an odd number of coordinates"
    if values.size < 6:
        return "polygon with fewer than three points"
    points = values.reshape(-1, 2)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    if not math.isfinite(left + top + right + bottom):
        return "polygon with NaN or infinite coordinates"
    low, high = np.array([-MARGIN, -MARGIN]), np.array([size[1] + MARGIN, size[0] + MARGIN])
    if min(left, top) < -MARGIN or right > high[0] or bottom > high[1]:
        points = _cut(points, low, high)
        if len(points) < 3:
            return "polygon outside the image"
    if _polygon_area(points) < MIN_AREA:
        return "polygon without an area"
    return points.ravel().tolist()


def _cut(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The part of a polygon [P, 2] within a rectangle, cut along its four sides one after the other."""
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


def _checked_runs(value: dict[str, Any], size: Size) -> Segmentation:
    given = value.get("size")
    if not isinstance(given, list) or [type(side) for side in given] != [int, int]:
        raise OutlineError("run lengths without a size")
    if tuple(given) != tuple(size):
        raise OutlineError("run lengths for another image size")
    runs = _run_lengths(value)
    if any(run < 0 for run in runs):
        raise OutlineError("run lengths with a negative run")
    if sum(runs) != size[0] * size[1]:
        raise OutlineError("run lengths that do not add up to the image")
    if not any(runs[1::2]):
        raise OutlineError("run lengths without a pixel")
    return {"size": list(given), "counts": value["counts"]}


def _run_lengths(value: dict[str, Any]) -> list[int]:
    """Lengths of the runs of 0s and 1s in turn, down the columns."""
    counts = value.get("counts")
    if isinstance(counts, str):
        return _decompressed(counts)
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return counts
    raise OutlineError("run lengths that are neither integers nor text")


def _decompressed(text: str) -> list[int]:
    """COCO's text form of run lengths: 5 bits per character from "0" on, a sixth that says more follow, signed,
    and from the fourth run on relative to the run before last."""  # fmt: skip
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - ord("0")
        if not 0 <= code < 64 or shift > 35:
            raise OutlineError("run lengths in damaged text")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise OutlineError("run lengths in damaged text")
    return runs
