"""The merged map (stride 16) at strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from piip import config
from piip.config import GROUP_NORM_GROUPS
from piip.inference.products import Product, Scratch
from piip.ops.paths import PIECE, gelu, in_pieces, is_plain
from piip.structures import Size, size_of


class FeatureMaps(nn.Module):
    """Transposed convolutions up, max-pooling down; each map is as wide as the merged map it is made from."""

    def __init__(
        self, width: int, maps: config.FeatureMaps, earlier_widths: Sequence[int] = (), grids_shrink: bool = False
    ) -> None:
        """See `forward`; `grids_shrink`: the merged maps (a ConvNeXt's) have the strides of the maps already."""
        super().__init__()
        self.strides = maps.strides
        finest, second = earlier_widths[:2] if earlier_widths else (width, width)
        if grids_shrink:
            levels: list[nn.Module] = [nn.Identity() for _ in range(4)]
        else:
            levels = [UpsampleTwice(finest, maps.norm), Upsample(second, second), nn.Identity(), Halve(2)]
        if 8 not in maps.strides:
            levels[:2] = nn.Identity(), nn.Identity()
        elif 4 not in maps.strides and not maps.unused_level:
            levels[0] = nn.Identity()
        self.levels = nn.ModuleList(levels)
        if 4 not in maps.strides:
            # Released models of three or more branches with three maps carry an unused stride-4 level; it is kept so
            # that their files are used to the last key and can be written back, but it takes no part in training.
            self.levels[0].requires_grad_(False)

    def forward(self, merged: Tensor, earlier: Sequence[Tensor] = ()) -> list[Tensor]:
        """One map per stride, finest first.

        `merged` [B, C, H, W] is the map of the last merge; `earlier` those of the merges before it, finest first, one
        for each of the other strides. Without them all maps are made from `merged`.
        """
        if min(merged.shape[-2:]) < 2 and isinstance(self.levels[-1], nn.MaxPool2d):
            raise ValueError(
                f"a merged grid of {tuple(merged.shape[-2:])} cells cannot be halved for the stride-32 map: the image "
                "must be at least 32 pixels in both directions"
            )
        sources = [*earlier, merged] if earlier else [merged] * len(self.levels)
        levels = list(self.levels)[-len(self.strides) :]
        return [level(source) for level, source in zip(levels, sources[-len(levels) :], strict=True)]


class Upsample(nn.ConvTranspose2d):
    """A transposed convolution of 2x2 with stride 2, as a matrix product: no two outputs share a pixel.

    Its result lies in memory channels last.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, C, H, W] -> [B, O, 2H, 2W]."""
        if is_plain() or output_size is not None:
            return super().forward(x, output_size)
        return self.to_map(x.permute(0, 2, 3, 1).flatten(1, 2), size_of(x))

    def cells(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., 2, 2, O]: the four pixels that each becomes."""
        bias = None if self.bias is None else self.bias.repeat(4)
        return F.linear(tokens, self._matrix(), bias).unflatten(-1, (2, 2, self.out_channels))

    def to_map(self, tokens: Tensor, size: Size, sides: int = 1) -> Tensor:
        """Tokens [B, H*W * sides**2, C] of a grid of `size` with so many by so many in each cell -> [B, O, *, *]."""
        shape = (*size, sides, sides)
        if in_pieces(tokens):
            out = self._in_pieces(tokens.unflatten(1, shape))
        else:
            out = _in_order(self.cells(tokens).unflatten(1, shape))
        return out.flatten(4, 6).flatten(1, 3).permute(0, 3, 1, 2)

    def _in_pieces(self, tokens: Tensor) -> Tensor:
        """[B, H, W, a, b, C] -> [B, H, a, 2, W, b, 2, O], see `_in_order`."""
        batch, height, width, sides = tokens.shape[:4]
        out = tokens.new_empty(batch, height, sides, 2, width, sides, 2, self.out_channels)
        product, scratch = Product(self._matrix(), None), Scratch(tokens)
        rows = max(1, PIECE // (width * sides**2))
        for image, pixels in zip(tokens, out, strict=True):
            for top in range(0, height, rows):
                piece = image[top : top + rows]
                cells = scratch.multiply(piece.flatten(0, 3), product)
                cells = _in_order(cells.view(1, *piece.shape[:4], 2, 2, self.out_channels))[0]
                if self.bias is None:
                    pixels[top : top + rows] = cells
                else:
                    torch.add(cells, self.bias, out=pixels[top : top + rows])
        return out

    def _matrix(self) -> Tensor:
        """[2 * 2 * O, C]."""
        return self.weight.permute(0, 2, 3, 1).flatten(1).t()


def _in_order(cells: Tensor) -> Tensor:
    """[B, H, W, a, b, c, d, O] -> [B, H, a, c, W, b, d, O]: pixels c, d of parts a, b of each cell, row by row."""
    return cells.permute(0, 1, 3, 5, 2, 4, 6, 7)


class UpsampleTwice(nn.Sequential):
    """Two of them, with a norm and GELU between.

    Norm and GELU do not ask where a pixel is, so only the result of the second is put in the order of a map.
    """

    def __init__(self, width: int, norm: str) -> None:
        between = nn.GroupNorm(GROUP_NORM_GROUPS, width) if norm == "groupnorm" else LayerNorm2d(width, eps=1e-6)
        super().__init__(Upsample(width, width), between, nn.GELU(), Upsample(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, 4H, 4W]."""
        parts: list[Any] = list(self)
        first, norm, _gelu, second = parts
        if is_plain():
            whole: Tensor = second(gelu(norm(first(x))))
            return whole
        cells = first.cells(x.permute(0, 2, 3, 1).contiguous())  # [B, H, W, 2, 2, C]
        height, width = size_of(x)
        grid = cells.view(len(x), 2 * height, 2 * width, -1)  # the pixels in another order
        normed = gelu(norm(grid.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        out: Tensor = second.to_map(normed.flatten(1, 2), size_of(x), sides=2)
        return out


class Halve(nn.MaxPool2d):
    """Max-pooling of 2x2 with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H // 2, W // 2]."""
        if not in_pieces(x):
            return super().forward(x)
        # The stock operation also finds out where each maximum was.
        height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
        upper, lower = x[:, :, 0:height:2, :width], x[:, :, 1:height:2, :width]
        larger = torch.maximum(upper, lower)
        return torch.maximum(larger[..., 0::2], larger[..., 1::2])
