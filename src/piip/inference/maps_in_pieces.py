"""Feature maps in inference on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from piip.backbone.feature_maps import Halve
from piip.inference.products import Product, Scratch
from piip.lean.maps import LeanUpsample, in_order
from piip.lean.situation import PIECE, in_pieces


class UpsampleInPieces(LeanUpsample):
    """Some rows of cells at a time, each result put into its place in the map at once."""

    def pixels(self, tokens: Tensor) -> Tensor:
        """[B, H, W, a, b, C] -> [B, H, a, 2, W, b, 2, O], see `in_order`."""
        if not in_pieces(tokens):
            return super().pixels(tokens)
        batch, height, width, sides = tokens.shape[:4]
        out = tokens.new_empty(batch, height, sides, 2, width, sides, 2, self.out_channels)
        product, scratch = Product(self.matrix(), None), Scratch(tokens)
        rows = max(1, PIECE // (width * sides**2))
        for image, pixels in zip(tokens, out, strict=True):
            for top in range(0, height, rows):
                piece = image[top : top + rows]
                cells = scratch.multiply(piece.flatten(0, 3), product)
                cells = in_order(cells.view(1, *piece.shape[:4], 2, 2, self.out_channels))[0]
                if self.bias is None:
                    pixels[top : top + rows] = cells
                else:
                    torch.add(cells, self.bias, out=pixels[top : top + rows])
        return out


class HalveByMaxima(Halve):
    """Max-pooling that does not find out where each maximum was, as the stock operation does."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H // 2, W // 2]."""
        if not in_pieces(x):
            return super().forward(x)
        height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
        upper, lower = x[:, :, 0:height:2, :width], x[:, :, 1:height:2, :width]
        larger = torch.maximum(upper, lower)
        return torch.maximum(larger[..., 0::2], larger[..., 1::2])
