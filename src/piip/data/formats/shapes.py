"""Shapes that tools draw, as the polygons and boxes that COCO knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from piip.data.formats.records import Points
from piip.data.values import as_number

ROUND = 40
"""corners of the polygon that stands for an ellipse"""


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> Points:
    """The polygon of an ellipse with its centre and its two radii, turned clockwise on the screen."""
    angles = [2 * math.pi * step / ROUND for step in range(ROUND)]
    return turned([(rx * math.cos(a), ry * math.sin(a)) for a in angles], cx, cy, degrees)


def rotated_box(cx: float, cy: float, width: float, height: float, degrees: float) -> Points:
    """The corners of a box that is turned clockwise on the screen about its centre."""
    x, y = width / 2, height / 2
    return turned([(-x, -y), (x, -y), (x, y), (-x, y)], cx, cy, degrees)


def turned(points: Points, cx: float, cy: float, degrees: float) -> Points:
    """Points about (0, 0), turned clockwise on the screen and moved to (cx, cy)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in points]


def bounds(points: Points) -> tuple[float, float, float, float]:
    """The box (x1, y1, x2, y2) around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def numbers(values: Iterable[Any]) -> list[float] | None:
    """All of them as finite floats; None where one is none."""
    found = [as_number(value) for value in values]
    good = [number for number in found if number is not None]
    return good if len(good) == len(found) else None


def pairs(values: Any) -> list[tuple[float, float]] | None:
    """Points from a list of (x, y); None where one is none."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return None
    found = [numbers(value) if isinstance(value, Sequence) and len(value) == 2 else None for value in values]
    return None if None in found else [(point[0], point[1]) for point in found if point is not None]
