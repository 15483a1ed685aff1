"""One label map from those of tiles: each pixel from the tile that it lies deepest in."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from piip.structures import Prediction, Size
from piip.tiles.grid import Tile


def joined(found: Iterable[tuple[Tile, Prediction]], tiles: list[Tile], size: Size) -> Prediction:
    """Labels (int32) and scores [H, W] of an image of `size`; tiles meet in the middle of what they share."""
    labels, scores = torch.zeros(size, dtype=torch.int32), torch.zeros(size)
    for tile, prediction in found:
        left, right = _own(tile.left, tile.right, {(other.left, other.right) for other in tiles})
        top, bottom = _own(tile.top, tile.bottom, {(other.top, other.bottom) for other in tiles})
        rows, columns = slice(top - tile.top, bottom - tile.top), slice(left - tile.left, right - tile.left)
        labels[top:bottom, left:right] = prediction["labels"][rows, columns]
        scores[top:bottom, left:right] = prediction["scores"][rows, columns].float()
    return {"labels": labels, "scores": scores}


def _own(start: int, end: int, spans: set[tuple[int, int]]) -> tuple[int, int]:
    """The part of a span up to the middles of what it shares with the one before and the one after."""
    before = max((other for other in spans if other[0] < start), default=None)
    after = min((other for other in spans if other[0] > start), default=None)
    return (
        start if before is None else (start + before[1]) // 2,
        end if after is None else (after[0] + end) // 2,
    )
