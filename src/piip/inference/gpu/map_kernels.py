"""GroupNorm of maps in memory channels last as Triton kernels: sums of channels, and scale, shift and activation.

Legend: B images, N pixels of each, C channels.
"""

# ruff: noqa: N803 (constants of a kernel are written large)
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS = 4096
"""pixels times channels (filled up to a power of two) that a program has at a time"""
STEPS = 16
"""times that many are added up by a program"""
WARPS = 4


@triton.jit(do_not_specialize=["pixels"])
def _add_up(
    x, sums, pixels, CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr
):  # fmt: skip
    channel, image = tl.arange(0, PADDED), tl.program_id(1)
    real = channel < CHANNELS
    first, second = tl.zeros((BLOCK, PADDED), dtype=tl.float32), tl.zeros((BLOCK, PADDED), dtype=tl.float32)
    for step in range(STEPS):
        pixel = (tl.program_id(0) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        at = x + (image.to(tl.int64) * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
        mask = (pixel < pixels)[:, None] & real[None, :]
        numbers = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        first += numbers
        second += numbers * numbers
    to = sums + (image * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * 2 * CHANNELS + channel
    tl.store(to, tl.sum(first, axis=0), mask=real)
    tl.store(to + CHANNELS, tl.sum(second, axis=0), mask=real)


@triton.jit(do_not_specialize=["pixels"])
def _scale(
    x, scale, shift, out, pixels,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    channel, image = tl.arange(0, PADDED), tl.program_id(1)
    pixel, real = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), channel < CHANNELS
    at = (image.to(tl.int64) * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
    mask = (pixel < pixels)[:, None] & real[None, :]
    factor = tl.load(scale + image * CHANNELS + channel, mask=real, other=0.0)
    summand = tl.load(shift + image * CHANNELS + channel, mask=real, other=0.0)
    numbers = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * factor[None, :] + summand[None, :]
    if ACTIVATION == "relu":
        numbers = tl.where(numbers < 0, 0.0, numbers)
    if ACTIVATION == "gelu":
        numbers = 0.5 * numbers * (1.0 + tl.erf(numbers * 0.7071067811865476))
    tl.store(out + at, numbers.to(out.dtype.element_ty), mask=mask)


def sums(x: Tensor) -> Tensor:
    """Of the channels of x [B, N, C] and of their squares: [B, 2, C] float32."""
    images, pixels, channels = x.shape
    sizes = _sizes(channels)
    programs = triton.cdiv(pixels, sizes["BLOCK"] * STEPS)
    parts = x.new_empty(images, programs, 2, channels, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _add_up[(programs, images)](x, parts, pixels, **sizes, STEPS=STEPS, num_warps=WARPS)
    return parts.sum(dim=1)


def scaled(x: Tensor, scale: Tensor, shift: Tensor, activation: str) -> Tensor:
    """activation(x * scale + shift) of x [B, N, C], scale and shift [B, C] float32; "none", "relu" or "gelu"."""
    images, pixels, channels = x.shape
    sizes = _sizes(channels)
    out = torch.empty_like(x)
    with torch.cuda.device_of(x):
        _scale[(triton.cdiv(pixels, sizes["BLOCK"]), images)](
            x, scale.contiguous(), shift.contiguous(), out, pixels, **sizes, ACTIVATION=activation, num_warps=WARPS
        )
    return out


def _sizes(channels: int) -> dict[str, int]:
    padded = triton.next_power_of_2(channels)
    return {"CHANNELS": channels, "PADDED": padded, "BLOCK": max(1, NUMBERS // padded)}
