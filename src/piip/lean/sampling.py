"""Deformable attention as bags of rows, on a CPU: the sums of `ops.deformable_attention`, several times faster.

Legend: B batch, Q queries, H heads, L levels, P points per level, D channels per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from piip.ops.deformable_attention import DeformableSampling, check_sizes, split_levels, sum_dtype
from piip.structures import Size

MANY_QUERIES = 4096
"""queries times heads from which rows are faster in inference"""
LARGE_LEVELS = 100_000
"""source numbers per image from which they are in training: below, the sampled images stay in the cache"""
BAGS = 4096
"""bags at a time; their rows stay in the cache"""


class RowSampling(DeformableSampling):
    """Rows where `benchmarks/deformable_attention.py` finds them to be faster, the definition elsewhere."""

    def forward(self, value: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor) -> Tensor:
        """See `deformable_attention`."""
        check_sizes(value, sizes, points)
        if rows_are_faster(value, points, weights):
            return sample_rows(value, sizes, points, weights)
        return super().forward(value, sizes, points, weights)


def rows_are_faster(value: Tensor, points: Tensor, weights: Tensor) -> bool:
    """For these sizes; a compiler or exporter is given the plain operations."""
    if value.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    inputs = (value, points, weights)
    needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if needs_gradient:
        return value.shape[1:].numel() >= LARGE_LEVELS
    return points.shape[:3].numel() >= MANY_QUERIES


def sample_rows(value: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor) -> Tensor:
    """The same sums as bags of rows: a sampled point is four rows of the (cell, head) table with bilinear weights.

    Several times faster than the reference on a CPU, because it reads whole rows of channels and writes no
    sampled image. Differentiable once.
    """
    dtype = sum_dtype(value)
    points, weights = points.to(dtype), weights.to(dtype)
    sampled = [
        _sample_level(tokens, sizes[level], points[:, :, :, level], weights[:, :, :, level])
        for level, tokens in enumerate(split_levels(value.to(dtype), sizes))
    ]
    return reduce(torch.add, sampled).to(value.dtype)


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
    for rows, piece in zip(first.split(BAGS), gradient.split(BAGS), strict=True):
        index = torch.cat([rows.long() + corner for corner in corners], dim=1)
        gathered = table.index_select(0, index.flatten()).unflatten(0, index.shape)
        with torch.autocast(table.device.type, enabled=False):  # a backward pass inside autocast stays exact
            products.append(torch.bmm(gathered, piece[:, :, None]).squeeze(2))
    return torch.cat(products)


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
