"""Where the tiles of an image are: all of one size, evenly laid, the last ones at its edges."""

from __future__ import annotations

import math
from typing import NamedTuple

from piip.structures import Size

OVERLAP = 0.2
"""of a tile's side, usually"""


class Tile(NamedTuple):
    """A rectangle of pixels, right and bottom not included."""

    left: int
    top: int
    right: int
    bottom: int


def grid(size: Size, side: int, overlap: float = OVERLAP) -> list[Tile]:
    """Tiles of `side` x `side` pixels that cover an image of `size`, row by row.

    Neighbours share at least `overlap` of their side. A tile is no larger than the image, which is one tile where it is
    no larger than a tile.

    >>> [tile[:2] for tile in grid((100, 180), 100, 0.1)]
    [(0, 0), (80, 0)]
    """
    if side < 1 or not 0 <= overlap < 1:
        raise ValueError(f"tiles of {side} pixels that share {overlap} of their side: use 1 pixel or more, and a share "
                         "from 0 to below 1")  # fmt: skip
    height, width = size
    return [
        Tile(left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side, overlap)
        for left in _starts(width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    count = math.ceil((length - side) / max(1, math.floor(side * (1 - overlap)))) + 1
    return [round(index * (length - side) / (count - 1)) for index in range(count)]
