"""GroupNorm and the activation after it, of maps in memory channels last: by the kernels of `map_kernels` on a GPU.

PyTorch's own turns such a map around, and its operations on tensors of two dtypes are slow. Legend: B images, N pixels
of each, C channels, G groups.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip.inference.gpu.rows import takes
from piip.lean.gpu.sampling import largest_difference, tried, waves

Activation = Literal["none", "relu", "gelu"]
PLAIN: Mapping[Activation, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}
MOST_IMAGES = 65535
"""that a grid of programs takes"""


class Signature(NamedTuple):
    """What the kernels are compiled for."""

    kind: str
    device: torch.device
    dtype: torch.dtype
    channels: int
    activation: Activation


def group_norm(norm: nn.GroupNorm, pixels: Tensor, activation: Activation = "none") -> Tensor:
    """activation(norm(pixels)) of [B, N, C] without autograd; means, variances, scales and shifts in float32."""
    pixels = pixels.contiguous()
    asked = Signature("maps", pixels.device, pixels.dtype, pixels.shape[-1], activation)
    if takes(pixels) and 0 < len(pixels) <= MOST_IMAGES and pixels.numel() and works(asked):
        scale, shift = _affine(norm, *_moments(_kernels().sums(pixels), pixels.shape[1], norm.num_groups))
        out: Tensor = _kernels().scaled(pixels, scale, shift, activation)
        return out
    grouped = pixels.unflatten(-1, (norm.num_groups, -1))  # [B, N, G, C / G]
    count = grouped.shape[1] * grouped.shape[3]
    mean = grouped.mean(dim=(1, 3), dtype=torch.float32)
    square = torch.linalg.vector_norm(grouped, dim=(1, 3), dtype=torch.float32).square() / count
    scale, shift = _affine(norm, mean, square)
    normed = torch.addcmul(shift[:, None], pixels, scale[:, None], out=torch.empty_like(pixels))
    return PLAIN[activation](normed)


def _moments(sums: Tensor, pixels: int, groups: int) -> tuple[Tensor, Tensor]:
    """Means [B, G] of the groups and of their squares, of sums [B, 2, C]."""
    grouped = sums.unflatten(-1, (groups, -1))
    first, second = (grouped.sum(dim=-1) / (pixels * grouped.shape[-1])).unbind(1)
    return first, second


def _affine(norm: nn.GroupNorm, mean: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift [B, C] float32 of means and mean squares [B, G]."""
    groups, channels = norm.num_groups, norm.num_channels
    scale = (square - mean.square()).clamp(min=0).add(norm.eps).rsqrt()
    scale, shift = (
        values[..., None].expand(-1, -1, channels // groups).flatten(1) for values in (scale, -mean * scale)
    )
    if norm.weight is not None:
        scale, shift = scale * norm.weight, shift * norm.weight
    return scale, shift if norm.bias is None else shift + norm.bias


def works(asked: Signature) -> bool:
    """Whether the kernels compile here and give the plain path's numbers, tried once in a process."""
    return tried(asked, asked.device, lambda: _difference(asked))


@cache
def _kernels() -> Any:
    return importlib.import_module("piip.inference.gpu.map_kernels")


@torch.no_grad()
def _difference(asked: Signature) -> float:
    """From the plain operations, for a small input."""
    with torch.inference_mode(False):
        x = waves(2, 7, asked.channels, like=asked.dtype, device=asked.device)
        scale, shift = (waves(2, asked.channels, like=torch.float32, device=asked.device) for _ in range(2))
        expected = PLAIN[asked.activation](x.float() * scale[:, None] + shift[:, None])
        sums = torch.stack((x.float().sum(1), x.float().square().sum(1)), dim=1)
        found = [_kernels().scaled(x, scale, shift, asked.activation), _kernels().sums(x)]
        return largest_difference(found, [expected, sums])
