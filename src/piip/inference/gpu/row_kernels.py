"""LayerNorm of rows as Triton kernels, with what comes before it: a sum, another order of the rows, a linear map.

A program handles a block of rows, whose channels lie side by side. What changes between images is not specialised, so
that a kernel is compiled once for each number of channels, dtype and kind.
"""

# ruff: noqa: N803 (constants of a kernel are written large)
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 2048
"""rows times channels (filled up to a power of two) of a program"""
WARPS = 4


@triton.jit(do_not_specialize=["rows", "tokens"])
def _normalise(
    x, added, order, weight, bias, ahead, total, out, rows, tokens, eps,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    ADDED: tl.constexpr, ORDERED: tl.constexpr, AFFINE: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    inside, real = row < rows, channel < CHANNELS
    mask = inside[:, None] & real[None, :]
    own = row.to(tl.int64)
    other = own
    if ORDERED:
        other = own - row % tokens + tl.load(order + row % tokens, mask=inside, other=0)
    to = own[:, None] * CHANNELS + channel[None, :]
    elsewhere = other[:, None] * CHANNELS + channel[None, :]
    if ADDED:
        numbers = tl.load(x + to, mask=mask, other=0.0).to(tl.float32)
        numbers += tl.load(added + elsewhere, mask=mask, other=0.0).to(tl.float32)
        kept = numbers
        if AHEAD:
            kept += tl.load(ahead + channel, mask=real, other=0.0).to(tl.float32)[None, :]
        tl.store(total + to, kept.to(total.dtype.element_ty), mask=mask)
        numbers = numbers.to(total.dtype.element_ty).to(tl.float32)  # as if they were added alone
    else:
        numbers = tl.load(x + elsewhere, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(numbers, axis=1) / CHANNELS
    away = tl.where(real[None, :], numbers - mean[:, None], 0.0)
    variance = tl.sum(away * away, axis=1) / CHANNELS
    normalised = away * tl.rsqrt(variance + eps)[:, None]
    if AFFINE:
        scale = tl.load(weight + channel, mask=real, other=0.0).to(tl.float32)
        shift = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
        normalised = normalised * scale[None, :] + shift[None, :]
    tl.store(out + to, normalised.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def _divide(
    both, least, shift, out, rows,
    VALUES: tl.constexpr, ROOTS: tl.constexpr, PADDED_VALUES: tl.constexpr, PADDED_ROOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value, root, inside = tl.arange(0, PADDED_VALUES), tl.arange(0, PADDED_ROOTS), row < rows
    start = both + row.to(tl.int64)[:, None] * (VALUES + ROOTS)
    there = inside[:, None] & (root < ROOTS)[None, :]
    roots = tl.load(start + VALUES + root[None, :], mask=there, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(roots * roots, axis=1) + tl.load(least).to(tl.float32))
    there = inside[:, None] & (value < VALUES)[None, :]
    values = tl.load(start + value[None, :], mask=there, other=0.0).to(tl.float32)
    shifts = tl.load(shift + value, mask=value < VALUES, other=0.0).to(tl.float32)
    scaled = values * scale[:, None] + shifts[None, :]
    to = out + row.to(tl.int64)[:, None] * VALUES + value[None, :]
    tl.store(to, scaled.to(out.dtype.element_ty), mask=there)


def divide(both: Tensor, least: Tensor, shift: Tensor) -> Tensor:
    """Of both = values and roots [..., V + R]: values / (|roots|^2 + least)^(1/2) + shift [V], [..., V]."""
    both = both.contiguous()
    values = len(shift)
    roots = both.shape[-1] - values
    out, rows = both.new_empty(*both.shape[:-1], values), both.numel() // both.shape[-1]
    padded = {"PADDED_VALUES": triton.next_power_of_2(values), "PADDED_ROOTS": triton.next_power_of_2(roots)}
    block = max(1, NUMBERS // max(padded.values()))
    if rows:
        with torch.cuda.device_of(both):
            _divide[(triton.cdiv(rows, block),)](
                both, least, shift, out, rows, VALUES=values, ROOTS=roots, **padded, BLOCK=block, num_warps=WARPS
            )
    return out


def normalise(x: Tensor, order: Tensor | None, affine: tuple[Tensor, Tensor] | None, eps: float) -> Tensor:
    """The norm of x [B, N, C], the rows of each image in an `order` [N]."""
    x = x.contiguous()
    out = torch.empty_like(x)
    _launch(x, None, order, affine, None, None, out, eps)
    return out


def add_and_normalise(
    x: Tensor,
    added: Tensor,
    order: Tensor | None,
    affine: tuple[Tensor, Tensor] | None,
    eps: float,
    ahead: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x + added[order], each [B, N, C], and its norm; `ahead` [C] is in the sum that is returned only."""
    x, added = x.contiguous(), added.contiguous()
    total, out = torch.empty_like(x), torch.empty_like(x)
    _launch(x, added, order, affine, ahead, total, out, eps)
    return total, out


def _launch(
    x: Tensor,
    added: Tensor | None,
    order: Tensor | None,
    affine: tuple[Tensor, Tensor] | None,
    ahead: Tensor | None,
    total: Tensor | None,
    out: Tensor,
    eps: float,
) -> None:
    if not out.numel():
        return
    channels, tokens = x.shape[-1], x.shape[-2]
    rows, padded = x.numel() // channels, triton.next_power_of_2(channels)
    block = max(1, NUMBERS // padded)
    given = {"ADDED": added, "ORDERED": order, "AFFINE": affine, "AHEAD": ahead}
    weight, bias = (x, x) if affine is None else affine
    tensors = [x if tensor is None else tensor for tensor in (added, order, weight, bias, ahead, total)]
    kinds = {kind: one is not None for kind, one in given.items()}
    sizes = {"CHANNELS": channels, "PADDED": padded, "BLOCK": block}
    with torch.cuda.device_of(x):
        _normalise[(triton.cdiv(rows, block),)](x, *tensors, out, rows, tokens, eps, **sizes, **kinds, num_warps=WARPS)
