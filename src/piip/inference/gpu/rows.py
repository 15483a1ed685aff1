"""LayerNorm on CUDA devices by the kernel of `row_kernels` where it works: PyTorch's own is slow for few channels.

Legend: B images, N rows of each, C channels.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from torch import Tensor, nn

from piip.inference.folding.interactions import NormalisedLinear
from piip.lean.gpu import sampling
from piip.lean.gpu.sampling import largest_difference, tried, waves

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_CHANNELS = 8192
"""that a program can hold"""


class Signature(NamedTuple):
    """What the kernels are compiled for."""

    kind: str
    device: torch.device
    dtype: torch.dtype
    channels: int
    values: int = 0
    """of a folded projection, the channels that are no roots"""


def rows_are_normalised(x: Tensor, *norms: nn.Module) -> bool:
    """Whether the functions below take x [B, N, C] and these norms, here and now."""
    return takes(x) and all(_is_plain(norm, x) for norm in norms) and works("rows", x.device, x.dtype, x.shape[-1])


def takes(x: Tensor) -> bool:
    """Whether the kernels are for [..., C] like these, without autograd and not for a compiler, at all."""
    if x.device.type not in sampling.DEVICES or not sampling.enabled or torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled(x.device.type):
        return False
    return x.dtype in DTYPES and x.shape[-1] <= MOST_CHANNELS and x.shape[:-1].numel() < 2**31


def normalised(x: Tensor, norm: Any, order: Tensor | None = None) -> Tensor:
    """norm(x), the rows of each image in an `order` [N] (int32): [B, N, C]."""
    out: Tensor = _kernels().normalise(x, order, _affine(norm), norm.eps)
    return out


def added_and_normalised(
    x: Tensor, added: Tensor, norm: Any, order: Tensor | None = None, ahead: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x + added, whose rows are taken in an `order` [N] (int32), and the norm of that: [B, N, C] each, new tensors.

    `ahead` [C] is added to the first of the two after that: the bias of a layer whose results will be added to it.
    """
    total, out = _kernels().add_and_normalise(x, added, order, _affine(norm), norm.eps, ahead)
    return total, out


def normalised_linear(folded: NormalisedLinear, x: Tensor) -> Tensor:
    """folded(x), all that follows its product in one pass: [..., S] -> [..., V]."""
    both = folded.both(x)
    if not takes(both) or not works("linear", both.device, both.dtype, both.shape[-1], len(folded.shift)):
        return folded.of(both)
    out: Tensor = _kernels().divide(both, folded.least, folded.shift)
    return out


def works(*signature: Any) -> bool:
    """Whether the kernels compile here and give the plain path's numbers, tried once in a process."""
    asked = Signature(*signature)
    return tried(asked, asked.device, lambda: _difference(asked))


def _is_plain(norm: nn.Module, x: Tensor) -> bool:
    """A LayerNorm over the channels, with weight and bias or without both, in the dtype of x."""
    if not isinstance(norm, nn.LayerNorm) or type(norm) not in (nn.LayerNorm, LayerNorm):
        return False
    if tuple(norm.normalized_shape) != (x.shape[-1],) or (norm.weight is None) != (norm.bias is None):
        return False
    return norm.weight is None or norm.weight.dtype == x.dtype


def _affine(norm: Any) -> tuple[Tensor, Tensor] | None:
    return None if norm.weight is None else (norm.weight, norm.bias)


@cache
def _kernels() -> Any:
    return importlib.import_module("piip.inference.gpu.row_kernels")


@torch.no_grad()
def _difference(asked: Signature) -> float:
    """From the plain path, for a small input."""
    return _difference_of_linear(asked) if asked.kind == "linear" else _difference_of_rows(asked)


def _difference_of_linear(asked: Signature) -> float:
    with torch.inference_mode(False):
        both = waves(2, 5, asked.channels, like=asked.dtype, device=asked.device)
        shift = waves(values := asked.values, like=asked.dtype, device=asked.device)
        least = torch.full((), 0.3, dtype=torch.float32, device=asked.device)
        variance = both[..., values:].float().square().sum(dim=-1, keepdim=True) + least
        expected = shift + both[..., :values] * variance.rsqrt()
        return largest_difference([_kernels().divide(both, least, shift)], [expected])


def _difference_of_rows(asked: Signature) -> float:
    with torch.inference_mode(False):
        x, added = (
            factor * waves(2, 5, asked.channels, like=asked.dtype, device=asked.device) for factor in (2.0, 0.7)
        )
        weight = 1 + waves(asked.channels, like=asked.dtype, device=asked.device)
        order = torch.arange(4, -1, -1, device=asked.device, dtype=torch.int32)
        sums = x + added[:, order.long()]
        expected = [
            F.layer_norm(x[:, order.long()], x.shape[2:]),
            sums,
            F.layer_norm(sums, x.shape[2:], weight, weight),
        ]
        expected += [sums + weight, F.layer_norm(x, x.shape[2:]), x + added]
        found = [_kernels().normalise(x, order, None, 1e-5)]
        found.extend(_kernels().add_and_normalise(x, added, order, (weight, weight), 1e-5))
        found.append(_kernels().add_and_normalise(x, added, order, None, 1e-5, weight)[0])
        found.append(_kernels().normalise(x, None, None, 1e-5))
        found.append(_kernels().add_and_normalise(x, added, None, None, 1e-5)[0])
        return largest_difference(found, expected)
