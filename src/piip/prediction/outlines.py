"""The outline of an object's pixels, for programs that take polygons."""

from __future__ import annotations

import numpy as np

from piip.data.object_masks import Crop

Point = tuple[int, int]
"""(x, y) of a pixel's corner"""


def outline(crop: Crop) -> np.ndarray:
    """[K, 2] float32 (x, y): the corners of the largest outline, clockwise, in pixels of the image; [0, 2] of none.

    It runs along the edges of pixels, so that the polygon covers just them, but for holes and smaller parts apart.
    """
    rings = _rings(_edges(crop.pixels))
    if not rings:
        return np.zeros((0, 2), dtype=np.float32)
    largest = max((np.array(ring, dtype=np.float32) for ring in rings), key=_area)
    return _corners(largest) + np.array((crop.left, crop.top), dtype=np.float32)


def _edges(pixels: np.ndarray) -> dict[Point, list[Point]]:
    """From where to where the edges of the pixels run that have no pixel behind them, the pixels at their right."""
    inside = np.pad(pixels, 1)
    found: dict[Point, list[Point]] = {}
    for (down, across), begin, end in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        beyond = np.roll(inside, (-down, -across), (0, 1))
        for y, x in np.argwhere(inside & ~beyond).tolist():
            x, y = x - 1, y - 1
            found.setdefault((x + begin[0], y + begin[1]), []).append((x + end[0], y + end[1]))
    return found


def _rings(edges: dict[Point, list[Point]]) -> list[list[Point]]:
    """All edges in closed chains, which use them up."""
    rings = []
    while edges:
        start = next(iter(edges))
        ring, point = [start], _next(edges, start)
        while point != start:
            ring.append(point)
            point = _next(edges, point)
        rings.append(ring)
    return rings


def _next(edges: dict[Point, list[Point]], point: Point) -> Point:
    ends = edges[point]
    end = ends.pop()
    if not ends:
        del edges[point]
    return end


def _area(ring: np.ndarray) -> float:
    """Positive where the inside is at the right (y grows downwards): of outlines, not of holes."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _corners(ring: np.ndarray) -> np.ndarray:
    """Without the points in the middle of straight lines."""
    before, behind = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    return np.asarray(ring[before[:, 0] * behind[:, 1] != before[:, 1] * behind[:, 0]])
