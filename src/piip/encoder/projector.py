"""From the branches' tokens to a language model's."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from piip import config
from piip.structures import BranchState


class BranchMLP(nn.Module):
    """Linear, GroupNorm over the whole map, GELU, linear: [B, C, h, w] -> [B, h*w, width]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, width)
        self.norm = nn.GroupNorm(config.GROUP_NORM_GROUPS, width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(width, width)

    def forward(self, grid: Tensor) -> Tensor:
        """The map's cells, row by row, in the new width."""
        hidden = self.fc1(grid.flatten(2).transpose(1, 2))  # [B, h*w, width]
        hidden = self.act(self.norm(hidden.transpose(1, 2)))  # [B, width, h*w]
        tokens: Tensor = self.fc2(hidden.transpose(1, 2))
        return tokens


class Projector(nn.Module):
    """Every branch on the finest one's grid, through an MLP of its own; their sum."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(BranchMLP(count, width) for count in channels)

    def forward(self, states: Sequence[BranchState]) -> Tensor:
        """States of the branches, finest first -> [B, N, width], N the cells of the finest one's grid."""
        size = states[0].size
        grids = (state.tokens.transpose(1, 2).unflatten(2, state.size) for state in states)
        tokens: Tensor = sum(mlp(_resized(grid, size)) for mlp, grid in zip(self.branches, grids, strict=True))
        return tokens


def _resized(grid: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(grid.shape[-2:]) == tuple(size):
        return grid
    return F.interpolate(grid.float(), size=size, mode="bilinear", align_corners=False).to(grid.dtype)
