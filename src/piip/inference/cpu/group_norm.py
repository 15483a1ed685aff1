"""GroupNorm in place, of a map that comes piece by piece."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from piip.lean.situation import PIECE


class Moments:
    """Sums over pixels [..., C] that come piece by piece: of their channels, and of these squared.

    Counted from the first piece's means, so that little is lost where the mean is large; kept in float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self.centre, self.first, self.second = torch.zeros(()), torch.zeros(()), torch.zeros(())

    def add(self, pixels: Tensor) -> None:
        """One piece more."""
        pixels = pixels.reshape(-1, pixels.shape[-1])
        if self.count == 0:
            self.centre = pixels.mean(dim=0)
        distances = pixels - self.centre
        self.count += len(pixels)
        self.first = self.first + distances.sum(dim=0).double()
        self.second = self.second + distances.square_().sum(dim=0).double()

    def affine(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Scale and shift [C] that stand for `norm` of all these pixels."""
        groups = norm.num_groups
        centre, first, second = (
            values.double().unflatten(0, (groups, -1))
            for values in (self.centre, self.first / self.count, self.second / self.count)
        )
        mean = (centre + first).mean(dim=1, keepdim=True)
        away = centre - mean
        variance = (second + 2 * away * first + away.square()).mean(dim=1, keepdim=True)
        scale = (variance + norm.eps).rsqrt().expand_as(centre).flatten()
        shift = -mean.expand_as(centre).flatten() * scale
        if norm.affine:
            scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
        dtype = self.centre.dtype
        return scale.to(dtype), shift.to(dtype)


def normalise_in_place(norm: nn.GroupNorm, x: Tensor) -> None:
    """`norm(x)` of a map [B, C, H, W] that is the caller's own, fastest where it lies in memory channels last."""
    rows = max(1, PIECE // x.shape[-1])
    for image in x.permute(0, 2, 3, 1):
        moments = Moments()
        for piece in image.split(rows):
            moments.add(piece)
        scale, shift = moments.affine(norm)
        for piece in image.split(rows):
            torch.addcmul(shift, piece, scale, out=piece)
