"""Masks as polygons along the edges of their pixels."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

Point = tuple[int, int]


def traced(mask: np.ndarray) -> list[list[Point]]:
    """The closed lines around the pixels of a mask [H, W], and around its holes: corners (x, y), on the pixels' edges.

    >>> traced(np.array([[0, 0, 0], [0, 1, 1]]))
    [[(1, 1), (3, 1), (3, 2), (1, 2)]]
    """
    following = _edges(np.pad(np.asarray(mask, dtype=bool), 1))
    lines = []
    for start in sorted(following, key=lambda point: (point[1], point[0])):
        if start not in following:
            continue  # on a line that was followed before
        line, point = [start], _next(following, start)
        while point != start:
            line.append(point)
            point = _next(following, point)
        lines.append(_corners(line))
    return lines


def _edges(padded: np.ndarray) -> dict[Point, list[Point]]:
    """From each point on an edge to the next ones, with the pixels of the mask always on the right."""
    following: dict[Point, list[Point]] = defaultdict(list)
    inside = padded.astype(np.int8)
    down, across = np.diff(inside, axis=0), np.diff(inside, axis=1)
    for sign, step in ((1, 1), (-1, -1)):  # above a pixel to the right, below one to the left
        for y, x in np.argwhere(down[:, 1:-1] == sign).tolist():
            following[(x, y) if step > 0 else (x + 1, y)].append((x + 1, y) if step > 0 else (x, y))
        for y, x in np.argwhere(across[1:-1] == sign).tolist():  # left of a pixel up, right of one down
            following[(x, y + 1) if step > 0 else (x, y)].append((x, y) if step > 0 else (x, y + 1))
    return following


def _next(following: dict[Point, list[Point]], point: Point) -> Point:
    """The next point, taken out of what is left."""
    chosen = following[point].pop()
    if not following[point]:
        del following[point]
    return chosen


def _corners(line: list[Point]) -> list[Point]:
    """Without the points between the ends of straight parts."""
    around = zip([line[-1], *line[:-1]], line, [*line[1:], line[0]], strict=True)
    return [here for before, here, after in around if not (before[0] == here[0] == after[0])
            and not (before[1] == here[1] == after[1])]  # fmt: skip
