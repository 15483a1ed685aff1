"""All maps at one width, and coarser levels besides."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from piip.config import GROUP_NORM_GROUPS


class ChannelMapper(nn.Module):
    """1x1 convolution and GroupNorm per map; then 3x3 convolutions of stride 2 for the levels beyond the last map."""

    def __init__(self, widths: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(_convolution(width, channels, kernel=1) for width in widths)
        inputs = [widths[-1], *(channels,) * levels][: levels - len(widths)]
        self.extra = nn.ModuleList(_convolution(width, channels, kernel=3) for width in inputs)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, *, h, w], finest first -> levels [B, C, h, w], as many as asked for."""
        levels = [project(one) for project, one in zip(self.projections, maps, strict=True)]
        for index, shrink in enumerate(self.extra):
            levels.append(shrink(levels[-1] if index else maps[-1]))  # the first is made from the map itself
        return levels

    @property
    def map_readers(self) -> tuple[nn.Module, ...]:
        """The 1x1 convolutions that alone read a map, in the order of the maps."""
        alone = list(self.projections)[: -1 if len(self.extra) else None]  # the first extra level is the last map's too
        return tuple(project[0] for project in alone)  # type: ignore[index]


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    stride = 2 if kernel == 3 else 1
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.xavier_uniform_(conv.weight)
    return nn.Sequential(conv, nn.GroupNorm(GROUP_NORM_GROUPS, outputs))
