"""Upsampling as matrix products: no two pixels of a transposed convolution of 2x2 with stride 2 share an input."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from piip.backbone.feature_maps import Upsample, UpsampleTwice
from piip.lean.situation import gelu
from piip.structures import Size, size_of


class LeanUpsample(Upsample):
    """The transposed convolution; its result lies in memory channels last."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, C, H, W] -> [B, O, 2H, 2W]."""
        if output_size is not None:
            return super().forward(x, output_size)
        return self.to_map(x.permute(0, 2, 3, 1).flatten(1, 2), size_of(x))

    def cells(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., 2, 2, O]: the four pixels that each becomes."""
        bias = None if self.bias is None else self.bias.repeat(4)
        # Of tokens that do not lie side by side, as a GPU's group norm leaves them, each would be a product of its own.
        return F.linear(tokens.contiguous(), self.matrix(), bias).unflatten(-1, (2, 2, self.out_channels))

    def to_map(self, tokens: Tensor, size: Size, sides: int = 1) -> Tensor:
        """Tokens [B, H*W * sides**2, C] of a grid of `size` with so many by so many in each cell -> [B, O, *, *]."""
        out = self.pixels(tokens.unflatten(1, (*size, sides, sides)))
        return out.flatten(4, 6).flatten(1, 3).permute(0, 3, 1, 2)

    def pixels(self, tokens: Tensor) -> Tensor:
        """[B, H, W, a, b, C] -> [B, H, a, 2, W, b, 2, O], see `in_order`."""
        return in_order(self.cells(tokens))

    def matrix(self) -> Tensor:
        """[2 * 2 * O, C]."""
        return self.weight.permute(0, 2, 3, 1).flatten(1).t()


def in_order(cells: Tensor) -> Tensor:
    """[B, H, W, a, b, c, d, O] -> [B, H, a, c, W, b, d, O]: pixels c, d of parts a, b of each cell, row by row."""
    return cells.permute(0, 1, 3, 5, 2, 4, 6, 7)


class LeanUpsampleTwice(UpsampleTwice):
    """Norm and GELU do not ask where a pixel is, so only the result of the second is put in the order of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, 4H, 4W]."""
        parts: list[Any] = list(self)
        first, norm, _gelu, second = parts
        cells = first.cells(x.permute(0, 2, 3, 1).contiguous())  # [B, H, W, 2, 2, C]
        height, width = size_of(x)
        grid = cells.view(len(x), 2 * height, 2 * width, -1)  # the pixels in another order
        normed = gelu(norm(grid.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        out: Tensor = second.to_map(normed.flatten(1, 2), size_of(x), sides=2)
        return out
