"""The exchange between branches with its projections, norms and scales folded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from piip.backbone.frames import between
from piip.backbone.interaction import CrossAttention, DeformableCrossAttention, Injector
from piip.inference.folding.affine import absorb_affine, compose, linear, precise, rounded, scale_outputs
from piip.structures import HALF, BranchState


class NormalisedLinear(nn.Module):
    """`second(LayerNorm(first(x)))` of two Linear layers S -> C -> V without computing the C channels between.

    With the norm's mean taken out of `first` (both are linear), its variance is |A x + a|^2 / C for a matrix A [C, S].
    A QR decomposition of [A a] makes that |R x + r|^2 + const with R [S, S], and the numerator of the whole is one
    matrix [V, S]. That is cheaper wherever S is (well) below C: S (V + S) multiply-adds for S C + C V.
    """

    def __init__(self, first: nn.Linear, norm: nn.LayerNorm, second: nn.Linear) -> None:
        super().__init__()
        inputs, width = first.in_features, first.out_features
        rows = torch.cat((precise(first.weight), _bias(first)[:, None]), dim=1)
        rows = rows - rows.mean(dim=0)  # [C, S + 1]
        root = torch.linalg.qr(rows, mode="r").R / width**0.5  # of the variance
        outer = precise(second.weight)
        shift = _bias(second)
        if norm.weight is not None:
            shift = shift + (0 if norm.bias is None else outer @ precise(norm.bias))
            outer = outer * precise(norm.weight)
        both = torch.cat((outer @ rows, root[:inputs]))
        self.both = linear(both[:, :inputs], both[:, inputs], first)
        self.channels = second.out_features
        # What is left of the variance for x = 0, and the norm's epsilon.
        least = norm.eps + root[inputs:, inputs].square().sum()
        self.register_buffer("least", rounded(least, first.weight))
        self.shift = nn.Parameter(rounded(shift, first.weight), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., S] -> [..., V]."""
        return self.of(self.both(x))

    def of(self, both: Tensor) -> Tensor:
        """What follows the product [..., V + S]."""
        values, roots = both.split((self.channels, self.both.out_features - self.channels), dim=-1)
        if self.both.weight.dtype in HALF and roots.device.type in ("cuda", "cpu"):  # one pass
            squares = torch.linalg.vector_norm(roots, dim=-1, keepdim=True, dtype=torch.float32).square()
        else:
            squares = roots.float().square().sum(dim=-1, keepdim=True)
        variance = squares + self.least
        return torch.addcmul(self.shift, values, variance.rsqrt().to(values.dtype))


class FoldedInjector(Injector):
    """One direction of an exchange whose scales are in the layers before them."""

    def forward(self, receiver: BranchState, source: BranchState) -> BranchState:
        """The receiver's new state."""
        x, projected = receiver.tokens, self.source_norm(self.projection(source.tokens))
        frame = between(receiver.frame, source.frame)
        x = x + self.attention(self.query_norm(x), receiver.size, projected, source.size, frame)
        if self.ffn is not None:
            x = x + self.drop_path(self.ffn(self.ffn_norm(x), receiver.size))
        return receiver._replace(tokens=x)


def fold_interactions(stages: Any) -> None:
    """Every injector of every stage."""
    for stage in stages:
        for unit in stage.units:
            for injector in (unit.to_fine, unit.to_coarse):
                if type(injector) is Injector:
                    _fold(injector)
                    injector.__class__ = FoldedInjector


def _fold(injector: Any) -> None:
    absorb_affine(injector.query_norm, _query_layers(injector.attention))
    injector.projection = _fold_source(injector.projection, injector.source_norm, injector.attention)
    injector.source_norm = nn.Identity()
    scale_outputs(injector.attention.output, injector.ca_gamma)
    del injector.ca_gamma
    if injector.ffn is not None:
        absorb_affine(injector.ffn_norm, [injector.ffn.fc1])
        scale_outputs(injector.ffn.fc2, injector.cffn_gamma)
        del injector.cffn_gamma


def _query_layers(attention: nn.Module) -> list[nn.Module]:
    if isinstance(attention, DeformableCrossAttention):
        return [attention.sampling_offsets, attention.attention_weights]
    return [attention.query] if isinstance(attention, CrossAttention) else []


def _fold_source(projection: nn.Module, norm: nn.Module, attention: Any) -> nn.Module:
    """What turns the source's tokens into what `attention` reads; its value layer is taken over where that pays."""
    layers = [attention.key, attention.value] if isinstance(attention, CrossAttention) else [attention.value]
    if not isinstance(projection, nn.Linear):
        absorb_affine(norm, layers)
        return norm
    if isinstance(norm, nn.Identity):
        for name in ("key", "value"):
            layer = getattr(attention, name, None)
            if layer is not None and projection.in_features * layer.out_features <= _cost(projection, layer):
                setattr(attention, name, linear(*compose(projection, layer), like=layer))
        return nn.Identity()
    inputs = projection.in_features
    if len(layers) == 1 and inputs * (attention.value.out_features + inputs) < _cost(projection, attention.value):
        folded = NormalisedLinear(projection, norm, attention.value)  # type: ignore[arg-type]
        attention.value = nn.Identity()
        return folded
    absorb_affine(norm, layers)
    return nn.Sequential(projection, norm)


def _cost(first: nn.Linear, second: nn.Linear) -> int:
    """Multiply-adds per token of both."""
    return first.weight.numel() + second.weight.numel()


def _bias(layer: nn.Linear) -> Tensor:
    return precise(layer.weight).new_zeros(layer.out_features) if layer.bias is None else precise(layer.bias)
