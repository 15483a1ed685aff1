"""Norm and linear in training on a CPU, without keeping what is between them.

Autograd would keep the normalised tokens beside the tokens. Here they are computed again in the backward pass, piece by
piece, which takes little time and saves an eighth of the memory of a training step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from piip.lean.gradients import NormGradients, zeros_where
from piip.lean.situation import pieces, recomputes


def norm_dtype(norm: nn.Module) -> torch.dtype | None:
    """Of a LayerNorm with weight and bias; None of any other module."""
    if not isinstance(norm, nn.LayerNorm) or type(norm) not in (nn.LayerNorm, LayerNorm):
        return None
    return None if norm.weight is None or norm.bias is None else norm.weight.dtype


def normalised_linear(norm: Any, layers: Sequence[Any], x: Tensor) -> Sequence[Tensor]:
    """layer(norm(x)) of each layer for x [..., C]. Differentiable once where it keeps less."""
    dtypes = {layer.weight.dtype if type(layer) is nn.Linear and layer.bias is not None else None for layer in layers}
    if not recomputes(x) or dtypes | {norm_dtype(norm)} != {x.dtype}:
        normalised = norm(x)
        return [layer(normalised) for layer in layers]
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    flat = x.reshape(-1, x.shape[-1])
    rows: Tensor = _NormalisedLinear.apply(flat, norm.weight, norm.bias, weight, bias, norm.eps)
    return rows.unflatten(0, x.shape[:-1]).split([layer.out_features for layer in layers], dim=-1)


class _NormalisedLinear(torch.autograd.Function):
    """[N, C] -> [N, O]; what is kept is the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, scale, shift, weight)
        ctx.eps = eps
        out = x.new_empty(len(x), len(weight))
        for piece in pieces(len(x)):
            normalised = F.layer_norm(x[piece], x.shape[1:], scale, shift, eps)
            torch.addmm(bias, normalised, weight.t(), out=out[piece])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight = ctx.saved_tensors
        wanted: tuple[bool, ...] = ctx.needs_input_grad
        norm, (for_weight,) = NormGradients.where(wanted[:3], x), zeros_where(wanted[3:4], x, (weight.shape,))
        for piece in pieces(len(x) if any(wanted[:4]) else 0):  # in order, so that the sums are the same every time
            normalised, *moments = torch.native_layer_norm(x[piece], x.shape[1:], scale, shift, ctx.eps)
            if for_weight is not None:
                for_weight.addmm_(gradient[piece].t(), normalised)
            if any(norm.wanted):
                norm.add(piece, gradient[piece] @ weight, x[piece], moments, (scale, shift))
        return *norm, for_weight, gradient.sum(0) if wanted[4] else None, None
