"""Norm, linear, GELU, linear in training on a CPU, with little memory.

Of a block's 4.2 million numbers per thousand tokens (C = 384) autograd would keep the normalised tokens and the GELU's
result beside its argument. Here both are computed again in the backward pass, piece by piece, which costs less time
than writing and reading them: what a piece needs stays in the cache, and no large memory is taken and given back.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from piip.lean.gradients import NormGradients, zeros_where
from piip.lean.normalised_linear import norm_dtype
from piip.lean.situation import pieces, recomputes


def can_be_cut(norm: nn.Module, mlp: nn.Module, tokens: Tensor) -> bool:
    """Whether `feed_forward` takes these modules in this situation."""
    return recomputes(tokens) and tokens.dtype == mlp_dtype(mlp) == norm_dtype(norm)


def mlp_dtype(mlp: nn.Module) -> torch.dtype | None:
    """Of timm's Mlp with biases and GELU, without a norm and dropout; None of any other module."""
    if type(mlp) is not Mlp or type(mlp.act) is not nn.GELU or not isinstance(mlp.norm, nn.Identity):
        return None
    layers = (mlp.fc1, mlp.fc2)
    if any(type(layer) is not nn.Linear or layer.bias is None for layer in layers):
        return None
    if mlp.training and (mlp.drop1.p or mlp.drop2.p):
        return None
    return mlp.fc1.weight.dtype if mlp.fc1.weight.dtype == mlp.fc2.weight.dtype else None


def feed_forward(tokens: Tensor, norm: Any, mlp: Any, gamma: Tensor | None) -> Tensor:
    """gamma * mlp(norm(tokens)) for [..., C], where `can_be_cut` holds. Differentiable once."""
    weight, bias = mlp.fc2.weight, mlp.fc2.bias
    if gamma is not None:
        weight, bias = weight * gamma[:, None], bias * gamma
    flat = tokens.reshape(-1, tokens.shape[-1])
    first = (norm.weight, norm.bias, mlp.fc1.weight, mlp.fc1.bias)
    out: Tensor = _FeedForward.apply(flat, *first, weight, bias, norm.eps, mlp.act.approximate)
    return out.reshape(tokens.shape)


class _FeedForward(torch.autograd.Function):
    """[N, C] -> [N, C]; what is kept is the input and the argument of GELU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        eps: float,
        approximate: str,
    ) -> Tensor:
        hidden, out = x.new_empty(len(x), len(w1)), torch.empty_like(x)
        for piece in pieces(len(x)):
            normalised = F.layer_norm(x[piece], x.shape[1:], scale, shift, eps)
            torch.addmm(b1, normalised, w1.t(), out=hidden[piece])
            torch.addmm(b2, F.gelu(hidden[piece], approximate=approximate), w2.t(), out=out[piece])
        ctx.save_for_backward(x, hidden, scale, shift, w1, w2)
        ctx.eps, ctx.approximate = eps, approximate
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, scale, shift, w1, w2 = ctx.saved_tensors
        wanted: tuple[bool, ...] = ctx.needs_input_grad
        norm = NormGradients.where(wanted[:3], x)
        shapes = w1.shape, w1.shape[:1], w2.shape, w2.shape[:1]
        for_w1, for_b1, for_w2, for_b2 = zeros_where(wanted[3:7], x, shapes)
        for piece in pieces(len(x)):  # in order, so that the sums are the same every time
            out = gradient[piece]
            if for_w2 is not None:
                for_w2.addmm_(out.t(), F.gelu(hidden[piece], approximate=ctx.approximate))
            if for_b2 is not None:
                for_b2 += out.sum(0)
            if not any(wanted[:5]):
                continue
            inner = torch.ops.aten.gelu_backward(out @ w2, hidden[piece], approximate=ctx.approximate)
            normalised, *moments = torch.native_layer_norm(x[piece], x.shape[1:], scale, shift, ctx.eps)
            if for_w1 is not None:
                for_w1.addmm_(inner.t(), normalised)
            if for_b1 is not None:
                for_b1 += inner.sum(0)
            if any(norm.wanted):
                norm.add(piece, inner @ w1, x[piece], moments, (scale, shift))
        return *norm, for_w1, for_b1, for_w2, for_b2, None, None
