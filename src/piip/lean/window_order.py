"""Tokens in the order of attention windows, without padding.

A grid whose sides are no multiples of the window has up to four regions of equal windows: the whole windows, those cut
by the right edge, those cut by the lower edge, and the one in the corner. Tokens in window order are those of the
first region, window by window, then those of the next; there is no padding among them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from piip.structures import Size


class Region(NamedTuple):
    """Equal windows, side by side: where they begin, how many there are, and the cells of each that are in the grid."""

    top: int
    left: int
    rows: int
    """of windows"""
    columns: int
    height: int
    """of each window, in cells"""
    width: int

    @property
    def windows(self) -> int:
        """Their number."""
        return self.rows * self.columns

    @property
    def cells(self) -> int:
        """Of each window."""
        return self.height * self.width


def regions(size: Size, window: int) -> tuple[Region, ...]:
    """The regions of a grid, one to four, in window order.

    >>> [(region.windows, region.height, region.width) for region in regions((5, 4), 2)]
    [(4, 2, 2), (2, 1, 2)]
    """
    down, across = _spans(size[0], window), _spans(size[1], window)
    return tuple(
        Region(top, left, rows, columns, height, width) for top, rows, height in down for left, columns, width in across
    )


def _spans(side: int, window: int) -> list[tuple[int, int, int]]:
    """(start, number, length) of the whole windows of one direction, then of the one that is cut."""
    whole, rest = divmod(side, window)
    return [span for span in ((0, whole, window), (whole * window, 1, rest)) if span[1] * span[2]]


def to_window_order(tokens: Tensor, size: Size, window: int) -> Tensor:
    """Tokens row by row [B, H*W, C] -> the same tokens in window order [B, H*W, C]."""
    grid = tokens.unflatten(1, size)
    parts = []
    for top, left, rows, columns, height, width in regions(size, window):
        part = grid[:, top : top + rows * height, left : left + columns * width]
        part = part.unflatten(2, (columns, width)).unflatten(1, (rows, height))  # [B, rows, height, columns, width, C]
        parts.append(part.transpose(2, 3).reshape(len(tokens), -1, tokens.shape[-1]))
    return _join(parts, dim=1)


def from_window_order(tokens: Tensor, size: Size, window: int) -> Tensor:
    """The inverse of `to_window_order`."""
    kinds = regions(size, window)
    parts = tokens.split([region.windows * region.cells for region in kinds], dim=1)
    strips: dict[int, list[Tensor]] = {}
    for (top, _, rows, columns, height, width), part in zip(kinds, parts, strict=True):
        grid = part.unflatten(1, (rows, columns, height, width)).transpose(2, 3)
        strips.setdefault(top, []).append(grid.flatten(3, 4).flatten(1, 2))  # [B, rows*height, columns*width, C]
    return _join([_join(strip, dim=2) for strip in strips.values()], dim=1).flatten(1, 2)


def reorder(tokens: Tensor, size: Size, old: int | None, new: int | None) -> Tensor:
    """[B, H*W, C] from the order of windows of side `old` to that of side `new`; None is row by row."""
    if old == new:
        return tokens
    if old is not None:
        tokens = from_window_order(tokens, size, old)
    return tokens if new is None else to_window_order(tokens, size, new)


def _join(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
