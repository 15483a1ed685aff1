"""Feature maps in inference on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from piip.backbone.feature_maps import Halve
from piip.inference.cpu.group_norm import Moments
from piip.inference.cpu.products import Product, Scratch
from piip.lean.maps import LeanUpsample, LeanUpsampleTwice, in_order
from piip.lean.situation import PIECE, gelu, in_pieces


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
            for piece, part in zip(image.split(rows), pixels.split(rows), strict=True):
                self.put(piece, part, product, scratch)
        return out

    def put(self, piece: Tensor, pixels: Tensor, product: Product, scratch: Scratch) -> None:
        """The pixels [H, a, 2, W, b, 2, O] of some rows [H, W, a, b, C], by the `product` of `matrix`."""
        cells = scratch.multiply(piece.flatten(0, 3), product)
        cells = in_order(cells.view(1, *piece.shape[:4], 2, 2, self.out_channels))[0]
        if self.bias is None:
            pixels.copy_(cells)
        else:
            torch.add(cells, self.bias, out=pixels)


class UpsampleTwiceInPieces(LeanUpsampleTwice):
    """Between the two only the norm sees all pixels: what it reads is there once, and overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, 4H, 4W]."""
        parts: list[Any] = list(self)
        first, norm, _gelu, second = parts
        known = type(first) is type(second) is UpsampleInPieces and type(norm) in (nn.GroupNorm, LayerNorm2d)
        if not known or not in_pieces(x):
            return super().forward(x)
        tokens = x.permute(0, 2, 3, 1)
        batch, height, width, _ = tokens.shape
        out = tokens.new_empty(batch, height, 2, 2, width, 2, 2, second.out_channels)
        for image, pixels in zip(tokens, out, strict=True):
            _upsample_twice(image, pixels, first, norm, second)
        return out.flatten(4, 6).flatten(1, 3).permute(0, 3, 1, 2)


def _upsample_twice(image: Tensor, pixels: Tensor, first: Any, norm: nn.Module, second: UpsampleInPieces) -> None:
    """[H, W, C] -> [H, 2, 2, W, 2, 2, O]."""
    height, width, _ = image.shape
    rows = max(1, PIECE // (4 * width))
    matrix = first.matrix()
    hidden = image.new_empty(height, width, 2, 2, first.out_channels)
    bias, moments = None if first.bias is None else first.bias.repeat(4), Moments()
    for piece, cells in zip(image.split(rows), hidden.split(rows), strict=True):
        target = cells.view(-1, len(matrix))
        if bias is None:
            torch.mm(piece.flatten(0, 1), matrix.t(), out=target)
        else:
            torch.addmm(bias, piece.flatten(0, 1), matrix.t(), out=target)
        if isinstance(norm, nn.GroupNorm):
            moments.add(cells)
    affine = moments.affine(norm) if isinstance(norm, nn.GroupNorm) else None
    product, scratch = Product(second.matrix(), None), Scratch(image)
    for cells, part in zip(hidden.split(rows), pixels.split(rows), strict=True):
        if affine is None:
            cells = norm(cells.flatten(0, 3).t()[None, :, :, None])[0, :, :, 0].t().reshape(cells.shape)
        else:
            torch.addcmul(affine[1], cells, affine[0], out=cells)
        second.put(gelu(cells), part, product, scratch)


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
