"""Feature pyramid network (Lin et al. 2017): every level gets what the coarser ones know."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Maps of `widths` channels, each half as large as the one before -> one map more, all of `channels`."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        for conv in (*self.laterals, *self.outputs):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Finest first; the extra level takes every second cell of the coarsest."""
        maps = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for level in range(len(maps) - 1, 0, -1):
            maps[level - 1] = maps[level - 1] + F.interpolate(maps[level], size=maps[level - 1].shape[-2:])
        maps = [output(level) for output, level in zip(self.outputs, maps, strict=True)]
        return [*maps, maps[-1][:, :, ::2, ::2]]
