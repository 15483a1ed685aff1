"""Deformable attention with one level as two Triton kernels. Needs Triton, which PyTorch for CUDA brings along.

A program handles a block of rows; a row is one head of one query of one image, and its channels lie side by side, so
that a sampled point is four short reads. Nothing that is sampled is written. Legend: B batch, Q queries, S source
tokens, H heads, P points, D channels per head.

What changes between images is not specialised, so that a kernel is compiled once for each H, P, D and dtypes.
"""

# ruff: noqa: N803 (constants of a kernel are written large)
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from piip.structures import Size

NUMBERS, ROWS, WARPS = 1024, 64, 4
"""of a program: rows times channels (filled up to a power of two) and rows at most; groups of 32 threads. Fewer rows
than threads, so that each works out its rows' places itself and asks no other"""
BACKWARD_NUMBERS, BACKWARD_ROWS, BACKWARD_WARPS = 256, 16, 1
"""the same of the backward kernel, whose sums over channels then stay within one group"""
CHANGING = ["rows", "queries", "tokens", "height", "width"]


@triton.jit
def _load_place(points, row, point, inside, height, width, POINTS: tl.constexpr):
    """Position in cells, as `grid_sample` has it but for the order in which a rounding falls."""
    at = points + (row.to(tl.int64) * POINTS + point) * 2
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(at + 1, mask=inside, other=0.0).to(tl.float32)
    return ((2 * x - 1 + 1) * width - 1) * 0.5, ((2 * y - 1 + 1) * height - 1) * 0.5


@triton.jit
def _corner(x, y, height, width, inside, RIGHT: tl.constexpr, BELOW: tl.constexpr):
    """One of the four cells around a position: whether there is one, its index, the shares in x and y of its value."""
    left, top = tl.floor(x), tl.floor(y)
    column, line = left + RIGHT, top + BELOW
    there = (column >= 0) & (column < width) & (line >= 0) & (line < height) & inside
    cell = tl.where(there, line, 0.0).to(tl.int32) * width + tl.where(there, column, 0.0).to(tl.int32)
    across, down = x - left, y - top
    share_x = across if RIGHT == 1 else 1 - across
    share_y = down if BELOW == 1 else 1 - down
    return there, cell, tl.where(there, share_x, 0.0), tl.where(there, share_y, 0.0)


@triton.jit(do_not_specialize=CHANGING)
def _forward(
    value, points, weights, out, rows, queries, tokens, height, width,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, POINTS: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, real = row < rows, channel < CHANNELS
    image = (row // HEADS // queries).to(tl.int64)
    source = value + (image * tokens * HEADS + row % HEADS)[:, None] * CHANNELS + channel[None, :]
    total = tl.zeros((BLOCK, PADDED), dtype=tl.float32)
    for point in tl.static_range(POINTS):
        x, y = _load_place(points, row, point, inside, height, width, POINTS)
        weight = tl.load(weights + row.to(tl.int64) * POINTS + point, mask=inside, other=0.0).to(tl.float32)
        total += (weight * ((x - x) + (y - y)))[:, None]  # 0, or NaN for a place that is none
        for corner in tl.static_range(4):
            there, cell, share_x, share_y = _corner(x, y, height, width, inside, corner % 2, corner // 2)
            mask = there[:, None] & real[None, :]
            numbers = tl.load(source + (cell * (HEADS * CHANNELS))[:, None], mask=mask, other=0.0)
            total += (weight * share_x * share_y)[:, None] * numbers.to(tl.float32)
    to = out + row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(to, total.to(out.dtype.element_ty), mask=inside[:, None] & real[None, :])


@triton.jit(do_not_specialize=[*CHANGING, "lines", "columns"])
def _mix(
    value, offsets, logits, out, rows, queries, tokens, height, width, lines, columns,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, POINTS: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, real = row < rows, channel < CHANNELS
    query, first = row // HEADS % queries, row.to(tl.int64) * POINTS
    image = (row // HEADS // queries).to(tl.int64)
    source = value + (image * tokens * HEADS + row % HEADS)[:, None] * CHANNELS + channel[None, :]
    own_x = (query % columns + 0.5) * (width / columns) - 0.5  # the query's own place, in cells of the source
    own_y = (query // columns + 0.5) * (height / lines) - 0.5
    highest = tl.load(logits + first, mask=inside, other=0.0).to(tl.float32)
    for point in tl.static_range(1, POINTS):
        highest = tl.maximum(highest, tl.load(logits + first + point, mask=inside, other=0.0).to(tl.float32))
    total, shares = tl.zeros((BLOCK, PADDED), dtype=tl.float32), tl.zeros((BLOCK,), dtype=tl.float32)
    for point in tl.static_range(POINTS):
        at = offsets + (first + point) * 2
        x = own_x + tl.load(at, mask=inside, other=0.0).to(tl.float32)
        y = own_y + tl.load(at + 1, mask=inside, other=0.0).to(tl.float32)
        weight = tl.exp(tl.load(logits + first + point, mask=inside, other=0.0).to(tl.float32) - highest)
        shares += weight
        total += (weight * ((x - x) + (y - y)))[:, None]  # 0, or NaN for a place that is none
        for corner in tl.static_range(4):
            there, cell, share_x, share_y = _corner(x, y, height, width, inside, corner % 2, corner // 2)
            mask = there[:, None] & real[None, :]
            numbers = tl.load(source + (cell * (HEADS * CHANNELS))[:, None], mask=mask, other=0.0)
            total += (weight * share_x * share_y)[:, None] * numbers.to(tl.float32)
    to = out + row.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
    tl.store(to, (total / shares[:, None]).to(out.dtype.element_ty), mask=inside[:, None] & real[None, :])


@triton.jit(do_not_specialize=CHANGING)
def _backward(
    gradient, value, points, weights, for_value, for_points, for_weights, rows, queries, tokens, height, width,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, POINTS: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr,
    VALUE: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, real = row < rows, channel < CHANNELS
    image = (row // HEADS // queries).to(tl.int64)
    start = (image * tokens * HEADS + row % HEADS)[:, None] * CHANNELS + channel[None, :]
    first = row.to(tl.int64)
    towards = tl.load(
        gradient + first[:, None] * CHANNELS + channel[None, :], mask=inside[:, None] & real[None, :], other=0.0
    ).to(tl.float32)
    for point in tl.static_range(POINTS):
        x, y = _load_place(points, row, point, inside, height, width, POINTS)
        weight = tl.load(weights + first * POINTS + point, mask=inside, other=0.0).to(tl.float32)
        mixed = (x - x) + (y - y)
        slope_x, slope_y = mixed, mixed
        for corner in tl.static_range(4):
            there, cell, share_x, share_y = _corner(x, y, height, width, inside, corner % 2, corner // 2)
            mask = there[:, None] & real[None, :]
            at = start + (cell * (HEADS * CHANNELS))[:, None]
            product = tl.sum(tl.load(value + at, mask=mask, other=0.0).to(tl.float32) * towards, axis=1)
            mixed += share_x * share_y * product
            slope_x += (share_y if corner % 2 == 1 else -share_y) * product
            slope_y += (share_x if corner // 2 == 1 else -share_x) * product
            if VALUE:
                tl.atomic_add(for_value + at, (weight * share_x * share_y)[:, None] * towards, mask=mask, sem="relaxed")
        tl.store(for_weights + first * POINTS + point, mixed.to(for_weights.dtype.element_ty), mask=inside)
        to = for_points + (first * POINTS + point) * 2
        tl.store(to, (weight * slope_x * width).to(for_points.dtype.element_ty), mask=inside)
        tl.store(to + 1, (weight * slope_y * height).to(for_points.dtype.element_ty), mask=inside)


def forward(value: Tensor, size: Size, points: Tensor, weights: Tensor) -> Tensor:
    """value [B, S, H, D], points [B, Q, H, 1, P, 2], weights [B, Q, H, 1, P] -> [B, Q, H * D], see `ops`."""
    value, points, weights = value.contiguous(), points.contiguous(), weights.contiguous()
    out = value.new_empty(*points.shape[:2], value.shape[2] * value.shape[3])
    if out.numel():
        grid, numbers, constants = _launch(value, size, points, NUMBERS, ROWS)
        with torch.cuda.device_of(value):
            _forward[grid](value, points, weights, out, *numbers, **constants, num_warps=WARPS)
    return out


def mix(value: Tensor, offsets: Tensor, logits: Tensor, grid: Size, size: Size) -> Tensor:
    """With places and softmax: [B, Q, H * D].

    value: [B, S, H, D] of a source of `size`; offsets [B, Q, H, P, 2] in its cells, logits [B, Q, H, P] of queries on
    a grid.
    """
    value, offsets, logits = value.contiguous(), offsets.contiguous(), logits.contiguous()
    out = value.new_empty(*logits.shape[:2], value.shape[2] * value.shape[3])
    if out.numel():
        programs, numbers, constants = _launch(value, size, logits[:, :, :, None], NUMBERS, ROWS)
        with torch.cuda.device_of(value):
            _mix[programs](value, offsets, logits, out, *numbers, *grid, **constants, num_warps=WARPS)
    return out


def backward(
    gradient: Tensor, value: Tensor, size: Size, points: Tensor, weights: Tensor, with_value: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Of `forward`, for the gradient [B, Q, H * D] of its result: those of value (else empty), points and weights.

    Sums are in float32, those of the value's in whatever order the card's atomic additions come.
    """
    gradient, value = gradient.contiguous(), value.contiguous()
    points, weights = points.contiguous(), weights.contiguous()
    for_points, for_weights = torch.empty_like(points), torch.empty_like(weights)
    for_value = torch.zeros(value.shape if with_value else 0, dtype=torch.float32, device=value.device)
    if gradient.numel():
        grid, numbers, constants = _launch(value, size, points, BACKWARD_NUMBERS, BACKWARD_ROWS)
        with torch.cuda.device_of(value):
            _backward[grid](
                gradient, value, points, weights, for_value, for_points, for_weights, *numbers,
                **constants, VALUE=with_value, num_warps=BACKWARD_WARPS,
            )  # fmt: skip
    return for_value.to(value.dtype), for_points, for_weights


def _launch(
    value: Tensor, size: Size, points: Tensor, most: int, most_rows: int
) -> tuple[tuple[int], tuple[int, ...], dict[str, int]]:
    """The number of programs, the numbers that change, and those that a kernel is compiled for."""
    _, tokens, heads, channels = value.shape
    queries, rows = points.shape[1], points.shape[:3].numel()
    padded = triton.next_power_of_2(channels)
    block = min(max(most // padded, 1), most_rows)
    constants = {"HEADS": heads, "CHANNELS": channels, "POINTS": points.shape[4], "BLOCK": block, "PADDED": padded}
    return (triton.cdiv(rows, block),), (rows, queries, tokens, *size), constants
