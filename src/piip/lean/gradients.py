"""Sums of gradients over pieces, of what wants one: frozen weights do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Size, Tensor


def zeros_where(wanted: Sequence[bool], like: Tensor, shapes: Iterable[Size]) -> list[Tensor | None]:
    """Zeros of each of `shapes`, or None where no gradient is wanted."""
    return [like.new_zeros(shape) if want else None for want, shape in zip(wanted, shapes, strict=True)]


class NormGradients(NamedTuple):
    """Of a LayerNorm over [N, C]: of its input, its weight and its bias, None where not wanted."""

    x: Tensor | None
    scale: Tensor | None
    shift: Tensor | None

    @classmethod
    def where(cls, wanted: Sequence[bool], x: Tensor) -> NormGradients:
        """Empty, for `wanted` of these three."""
        channels = x.shape[1:]
        return cls(torch.empty_like(x) if wanted[0] else None, *zeros_where(wanted[1:], x, (channels, channels)))

    @property
    def wanted(self) -> list[bool]:
        """Which of the three."""
        return [part is not None for part in self]

    def add(
        self, piece: slice, gradient: Tensor, x: Tensor, moments: Sequence[Tensor], affine: Sequence[Tensor]
    ) -> None:
        """What a `piece` of the rows contributes.

        Args:
            piece: which rows.
            gradient: of the norm's result for them.
            x: the rows themselves.
            moments: their mean and 1 / std.
            affine: the norm's weight and bias.
        """
        parts = torch.ops.aten.native_layer_norm_backward(gradient, x, x.shape[1:], *moments, *affine, self.wanted)
        if self.x is not None:
            self.x[piece] = parts[0]
        if self.scale is not None:
            self.scale.add_(parts[1])
        if self.shift is not None:
            self.shift.add_(parts[2])
