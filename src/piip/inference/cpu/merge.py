"""The merge in inference on a CPU: norms in place, and each branch's map is added as soon as it is there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from piip.backbone.merge import ConvMerge, LightMerge, on_grid, to_map
from piip.inference.cpu.group_norm import normalise_in_place
from piip.lean.situation import in_pieces
from piip.structures import BranchState


class ConvMergeInPlace(ConvMerge):
    """The same merged map with half of the memory."""

    def forward(self, states: list[BranchState]) -> Tensor:
        """See `Merge`."""
        return merge_in_place(self, states) if _can_be(states) else super().forward(states)


class LightMergeInPlace(LightMerge):
    """The same."""

    def forward(self, states: list[BranchState]) -> Tensor:
        """See `Merge`."""
        return merge_in_place(self, states) if _can_be(states) else super().forward(states)


def _can_be(states: list[BranchState]) -> bool:
    return in_pieces(*(state.tokens for state in states))


def merge_in_place(merge: Any, states: list[BranchState]) -> Tensor:
    """One map [B, C, H, W] on the grid of the finest branch."""
    merged: Tensor | None = None
    for project, weight, state in zip(merge.projections, merge.weights, states, strict=True):
        branch_map = on_grid(_projected(project, to_map(state)), state.frame, states[0].size)
        if merged is None:
            merged = branch_map.mul_(weight)
        else:
            merged.add_(branch_map.mul_(weight))
        del branch_map
    assert merged is not None
    return merged


def _projected(project: nn.Sequential, x: Tensor) -> Tensor:
    """`project(x)` as a new map; `x` is not touched."""
    if not isinstance(project[0], nn.Conv2d):
        x = x.clone(memory_format=torch.channels_last)
    for part in project:
        if isinstance(part, nn.GroupNorm):
            normalise_in_place(part, x)
        elif isinstance(part, nn.ReLU):
            x = x.relu_()
        else:
            x = part(x)
    return x
