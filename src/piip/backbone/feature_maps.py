"""The merged map (stride 16) at strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from piip import config
from piip.config import GROUP_NORM_GROUPS


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
            levels = [UpsampleTwice(finest, maps.norm), Upsample(second, second), nn.Identity(), Halve()]
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
    """A transposed convolution of 2x2 with stride 2: [B, C, H, W] -> [B, O, 2H, 2W]."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, kernel_size=2, stride=2)


class UpsampleTwice(nn.Sequential):
    """Two of them, with a norm and GELU between: [B, C, H, W] -> [B, C, 4H, 4W]."""

    def __init__(self, width: int, norm: str) -> None:
        between = nn.GroupNorm(GROUP_NORM_GROUPS, width) if norm == "groupnorm" else LayerNorm2d(width, eps=1e-6)
        super().__init__(Upsample(width, width), between, nn.GELU(), Upsample(width, width))


class Halve(nn.MaxPool2d):
    """Max-pooling of 2x2 with stride 2: [B, C, H, W] -> [B, C, H // 2, W // 2]."""

    def __init__(self) -> None:
        super().__init__(2)
