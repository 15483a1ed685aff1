"""Deformable attention in inference on a CPU: bags of rows, computed plane by plane.

Legend: Q queries, H heads, P points, D channels per head.

What the general operation gets as points and weights per query is here kept as planes [H, P, Q], straight from the
matrix product that makes them. So every step runs along contiguous queries, the softmax over P included, and only the
finished rows and shares are turned round to bags.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from piip.lean.situation import PIECE
from piip.structures import Size

EXACT = 2**24
"""float32 counts to here"""
ROWS = 2**31
"""int32 counts to here"""


def fits(dtype: torch.dtype, size: Size, heads: int) -> bool:
    """Whether float32 holds the values of a source of `size`, and int32 the numbers of a `table`'s rows."""
    return dtype != torch.float64 and _rows(size, heads) < ROWS


def _rows(size: Size, heads: int) -> int:
    """Of a table."""
    return (size[0] + 3) * (size[1] + 3) * heads


def table(tokens: Tensor, size: Size, heads: int, to_values: Callable[[Tensor], Tensor]) -> Tensor:
    """One image's source tokens [S, C] as rows [T, D] of values in float32, with a border of zero cells.

    One before and two behind in each direction, so that all four corners of a clamped position are cells. `to_values`,
    [N, C] -> [N, H * D], is called for some rows of cells at a time.
    """
    height, width = size
    rows = max(1, PIECE // width)
    bordered: Tensor | None = None
    for top in range(0, height, rows):
        values = to_values(tokens[top * width : (top + rows) * width])
        if bordered is None:
            bordered = values.new_zeros(height + 3, width + 3, values.shape[-1], dtype=torch.float32)
        bordered[top + 1 : top + 1 + len(values) // width, 1 : width + 1] = values.unflatten(0, (-1, width))
    assert bordered is not None
    return bordered.reshape(-1, bordered.shape[-1] // heads)


def sample(table: Tensor, size: Size, x: Tensor, y: Tensor, logits: Tensor) -> Tensor:
    """Softmax-weighted sums of bilinear samples: [Q, H * D].

    Args:
        table: see `table`, of a source of `size` for which `fits` holds.
        x, y: [H, P, Q] float32, in cells of the source; (0.5, 0.5) is the centre of the first. Overwritten.
        logits: [H, P, Q] float32, of the weights of each query's P points per head. Overwritten.
    """
    height, width = size
    heads, points, queries = x.shape
    below = (width + 3) * heads  # from a row of the table to that of the cell below; the cell beside is `heads` away
    x, y = x.add_(0.5).clamp_(0, width + 1), y.add_(0.5).clamp_(0, height + 1)
    left, top = x.trunc(), y.trunc()
    x, y = x.sub_(left), y.sub_(top)
    rows = _planes(heads, points, queries, torch.int32)
    if _rows(size, heads) >= EXACT:
        top, left = top.int(), left.int()
    rows[:, 0] = top.mul_(below).add_(left, alpha=heads).add_(torch.arange(heads)[:, None, None])
    rows[:, 0].clamp_(0, len(table) - below - heads - 1)  # NaN has no cell: it must not read out of bounds
    for corner, step in enumerate((heads, below, below + heads), start=1):
        torch.add(rows[:, 0], step, out=rows[:, corner])
    weights = logits.sub_(logits.amax(dim=1, keepdim=True)).exp_()
    weights = weights.div_(weights.sum(dim=1, keepdim=True))
    shares = _planes(heads, points, queries, torch.float32)
    lower = torch.mul(weights, y, out=y)
    upper = weights.sub_(lower)
    torch.mul(upper, x, out=shares[:, 1])
    torch.mul(lower, x, out=shares[:, 3])
    torch.sub(upper, shares[:, 1], out=shares[:, 0])
    torch.sub(lower, shares[:, 3], out=shares[:, 2])
    bags = (-1, 4 * points)
    out = F.embedding_bag(
        rows.flatten(0, 2).t().reshape(bags),
        table,
        mode="sum",
        per_sample_weights=shares.flatten(0, 2).t().reshape(bags),
    )
    return out.reshape(queries, -1)


def _planes(heads: int, points: int, queries: int, dtype: torch.dtype) -> Tensor:
    """[H, 4, P, Q]. Rows end in a little waste: were they powers of two apart, turning them round would meet the same
    few lines of the cache again and again."""
    pitch = 16 * (-(-queries // 16) | 1)
    return torch.empty(heads, 4, points, pitch, dtype=dtype)[..., :queries]
