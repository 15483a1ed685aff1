"""Multi-level deformable attention (Zhu et al. 2021): a plain reference, a faster CPU path, one front door.

Legend: B batch, Q queries, H heads, L levels, P points per level, S source tokens (all levels), D channels per head.

`deformable_attention` chooses a path by itself. Both paths give the same numbers; the tests hold them to 1e-5
in forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from piip.ops.paths import is_plain
from piip.structures import Size


def deformable_attention(value: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinearly sampled values.

    Args:
        value: [B, S, H, D], the source tokens of all levels, row by row, level after level.
        sizes: (height, width) of each level in cells; their areas sum to S.
        points: [B, Q, H, L, P, 2], sampling positions (x, y) in 0..1 of the level's width and height.
            Cell (0, 0) has its centre at (0.5 / width, 0.5 / height); outside 0..1 lie zeros.
        weights: [B, Q, H, L, P], attention weights.

    Returns:
        [B, Q, H * D] in the dtype of `value`.

    Raises:
        ValueError: if `sizes` do not match the number of source tokens or of levels.

    Positions and sums are handled in float32 (float64 if `value` is) whatever the dtype of `value`: in half
    precision a position on a grid of 100 cells would be off by a tenth of a cell.
    """
    tokens = sum(height * width for height, width in sizes)
    if tokens != value.shape[1] or len(sizes) != points.shape[3]:
        raise ValueError(
            f"levels {list(sizes)} hold {tokens} tokens, but value has {value.shape[1]} and points have "
            f"{points.shape[3]} levels"
        )
    if _rows_are_faster(value, points, weights):
        return deformable_attention_rows(value, sizes, points, weights)
    return deformable_attention_reference(value, sizes, points, weights)


def cell_centres(size: Size, device: torch.device) -> Tensor:
    """[H*W, 2] float32: (x, y) in 0..1 of the centre of each cell of a grid, row by row."""
    height, width = size
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=-1)


def ring_offsets(heads: int, levels: int, points: int) -> Tensor:
    """[H, L, P, 2] float32, where sampling starts: a ring of directions, one per head, the p-th point at distance p."""
    angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
    directions = directions / directions.abs().amax(dim=-1, keepdim=True)
    distances = torch.arange(1, points + 1, dtype=torch.float32)
    return (directions[:, None, None] * distances[:, None]).expand(-1, levels, -1, -1)


MANY_QUERIES = 4096
"""queries times heads from which rows are faster in inference"""
LARGE_LEVELS = 100_000
"""source numbers per image from which they are in training: below, the sampled images stay in the cache"""


def _rows_are_faster(value: Tensor, points: Tensor, weights: Tensor) -> bool:
    """As `benchmarks/deformable_attention.py` finds; a compiler is given the plain operations to fuse."""
    if value.device.type != "cpu" or torch.compiler.is_compiling() or is_plain():
        return False
    inputs = (value, points, weights)
    needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if needs_gradient:
        return value.shape[1:].numel() >= LARGE_LEVELS
    return points.shape[:3].numel() >= MANY_QUERIES


def deformable_attention_reference(value: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor) -> Tensor:
    """The definition, on `grid_sample`: any device, any dtype, forward and backward."""
    batch, _, heads, channels = value.shape
    queries, _, levels, count = points.shape[1:5]
    dtype = _sum_dtype(value)
    grids = (2 * points.to(dtype) - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # [B*H, L, Q, P, 2]
    sampled = []
    for level, tokens in enumerate(_split_levels(value.to(dtype), sizes)):
        image = tokens.permute(0, 2, 3, 1).reshape(batch * heads, channels, *sizes[level])
        sampled.append(F.grid_sample(image, grids[:, level], padding_mode="zeros", align_corners=False))
    stacked = torch.stack(sampled, dim=-2)  # [B*H, D, Q, L, P]
    mixed = weights.to(dtype).permute(0, 2, 1, 3, 4).reshape(batch * heads, 1, queries, levels, count)
    out = (stacked * mixed).sum((-1, -2)).reshape(batch, heads * channels, queries)
    return out.transpose(1, 2).to(value.dtype)


def deformable_attention_rows(value: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor) -> Tensor:
    """The same sums as bags of rows: a sampled point is four rows of the (cell, head) table with bilinear weights.

    Several times faster than the reference on a CPU, because it reads whole rows of channels and writes no
    sampled image. Differentiable once.
    """
    dtype = _sum_dtype(value)
    points, weights = points.to(dtype), weights.to(dtype)
    sampled = [
        _sample_level(tokens, sizes[level], points[:, :, :, level], weights[:, :, :, level])
        for level, tokens in enumerate(_split_levels(value.to(dtype), sizes))
    ]
    return reduce(torch.add, sampled).to(value.dtype)


def _sum_dtype(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)


def _split_levels(value: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
    return value.split([height * width for height, width in sizes], dim=1)


def _sample_level(tokens: Tensor, size: Size, points: Tensor, weights: Tensor) -> Tensor:
    """One level: tokens [B, height*width, H, D], points [B, Q, H, P, 2], weights [B, Q, H, P] -> [B, Q, H*D]."""
    batch, _, heads, channels = tokens.shape
    height, width = size
    # A border of zero cells, one before and two behind, makes every corner of a clamped position a cell of the grid.
    bordered = F.pad(tokens.reshape(batch, height, width, heads * channels), (0, 0, 1, 2, 1, 2))
    below = (width + 3) * heads  # from a row of the table to that of the cell below; the cell beside is `heads` away
    x = (points[..., 0] * width + 0.5).clamp(0, width + 1)
    y = (points[..., 1] * height + 0.5).clamp(0, height + 1)
    left, top = x.detach().int(), y.detach().int()
    head = torch.arange(heads, dtype=torch.int32, device=tokens.device)[:, None]
    image = torch.arange(batch, dtype=torch.int32, device=tokens.device)[:, None, None, None]
    first = image * ((height + 3) * below) + top * below + left * heads + head  # [B, Q, H, P]
    table = bordered.reshape(-1, channels)
    first = first.clamp(0, len(table) - below - heads - 1)  # NaN has no cell: it must not read out of bounds
    shape = (-1, points.shape[3])
    out = _BilinearBags.apply(
        table,
        first.reshape(shape),
        (x - left).reshape(shape),
        (y - top).reshape(shape),
        weights.reshape(shape),
        (0, heads, below, below + heads),
    )
    return out.reshape(batch, points.shape[1], heads * channels)


class _BilinearBags(torch.autograd.Function):
    """[T, D] table -> [R, D]: row r is the sum over P points of weights[r, p] * a bilinear mean of four table rows.

    The four are `first[r, p]` + each of `corners`; `x`, `y` [R, P] in 0..1 are the point's place between them.
    """

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, first: Tensor, x: Tensor, y: Tensor, weights: Tensor, corners: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(table, first, x, y, weights)
        ctx.corners = corners
        rows = torch.cat([first + corner for corner in corners], dim=1)
        corner_weights = torch.cat(_corner_weights(x, y, weights), dim=1)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=corner_weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        table, first, x, y, weights = ctx.saved_tensors
        gradient = gradient.contiguous()
        for_table = for_x = for_y = for_weights = None
        if ctx.needs_input_grad[0]:
            corner_weights = _corner_weights(x, y, weights)
            for_table = _table_gradient(gradient, len(table), first, corner_weights, ctx.corners)
        if any(ctx.needs_input_grad[2:5]):
            dots = _row_products(table, first, gradient, ctx.corners)
            top_left, top_right, bottom_left, bottom_right = dots.split(first.shape[1], dim=1)
            across_top, across_bottom = top_right - top_left, bottom_right - bottom_left
            top, bottom = top_left + x * across_top, bottom_left + x * across_bottom
            for_x = weights * torch.lerp(across_top, across_bottom, y)
            for_y = weights * (bottom - top)
            for_weights = torch.lerp(top, bottom, y)
        return for_table, None, for_x, for_y, for_weights, None


def _corner_weights(x: Tensor, y: Tensor, weights: Tensor) -> list[Tensor]:
    """Shares of the top left, top right, bottom left and bottom right row."""
    bottom = weights * y
    top = weights - bottom
    top_right, bottom_right = top * x, bottom * x
    return [top - top_right, top_right, bottom - bottom_right, bottom_right]


def _row_products(table: Tensor, first: Tensor, gradient: Tensor, corners: Sequence[int]) -> Tensor:
    """[R, 4 * P]: each sampled row times its bag's gradient."""
    products = []
    # In pieces, because all gathered rows together are 4 * P times the size of the output; with int64, because it
    # is the index type with a fast path here.
    for rows, piece in zip(first.split(PIECE), gradient.split(PIECE), strict=True):
        index = torch.cat([rows.long() + corner for corner in corners], dim=1)
        gathered = table.index_select(0, index.flatten()).unflatten(0, index.shape)
        with torch.autocast(table.device.type, enabled=False):  # a backward pass inside autocast stays exact
            products.append(torch.bmm(gathered, piece[:, :, None]).squeeze(2))
    return torch.cat(products)


PIECE = 4096
"""bags at a time; their rows stay in the cache"""


def _table_gradient(
    gradient: Tensor, length: int, first: Tensor, corner_weights: Sequence[Tensor], corners: Sequence[int]
) -> Tensor:
    """[T, D]: turned round, each row of the table is a bag of the gradients of the outputs that read it."""
    rows, order = first.flatten().sort()
    starts = torch.searchsorted(rows, torch.arange(length, dtype=rows.dtype, device=rows.device))
    readers = order.div(first.shape[1], rounding_mode="floor")
    out = torch.zeros(length, gradient.shape[1], dtype=gradient.dtype, device=gradient.device)
    for corner, share in zip(corners, corner_weights, strict=True):
        part = F.embedding_bag(
            readers, gradient, starts, mode="sum", per_sample_weights=share.flatten().index_select(0, order)
        )
        out[corner:] += part[: length - corner]
    return out
