"""All branches into one map (paper, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip.backbone.frames import under
from piip.config import GROUP_NORM_GROUPS
from piip.structures import BranchState, Size


class Merge(nn.Module):
    """One projection per branch to a common width, resized to the finest grid, summed with learned weights.

    Of a branch with a view of its own, what of its map lies under the finest branch's image.
    """

    def __init__(self, projections: list[nn.Sequential]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(projections)
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in projections)

    def forward(self, states: list[BranchState]) -> Tensor:
        """One map [B, C, H, W] on the grid of the first (finest) branch."""
        finest = states[0].size
        maps = [
            on_grid(project(to_map(state)), state.frame, finest)
            for project, state in zip(self.projections, states, strict=True)
        ]
        merged = maps[0] * self.weights[0]
        for weight, branch_map in zip(list(self.weights)[1:], maps[1:], strict=True):
            merged = merged + weight * branch_map
        return merged


class ConvMerge(Merge):
    """Two convolutions per branch, to the largest width: when all maps are made from one merged map."""

    def __init__(self, widths: list[int]) -> None:
        out = max(widths)
        super().__init__([nn.Sequential(*_convolution(width, out), *_convolution(out, out)) for width in widths])


class LightMerge(Merge):
    """One convolution per branch, to the width of the coarsest, which has none: when each map has its own merge."""

    def __init__(self, widths: list[int]) -> None:
        out = widths[-1]
        projections = [nn.Sequential(*_convolution(width, out)) for width in widths[:-1]]
        super().__init__([*projections, nn.Sequential(nn.GroupNorm(GROUP_NORM_GROUPS, out), nn.ReLU(inplace=True))])


class OnlyBranch(nn.Module):
    """What stands for the merge in a single-branch baseline: the branch's own map."""

    def forward(self, states: list[BranchState]) -> Tensor:
        """The map [B, C, H, W] of the only branch, on its own grid."""
        return to_map(states[0])


def _convolution(width: int, out: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(width, out, 3, padding=1, bias=False), nn.GroupNorm(GROUP_NORM_GROUPS, out), nn.ReLU(inplace=True)


def to_map(state: BranchState) -> Tensor:
    """Tokens [B, H*W, C] as a map [B, C, H, W]."""
    return state.tokens.transpose(1, 2).unflatten(2, state.size)


def on_grid(branch_map: Tensor, frame: Tensor | None, size: Size) -> Tensor:
    """A branch's map [B, C, h, w] on a grid of `size` over the batch's own images, of which `frame` is as in `View`."""
    return resize(branch_map, size) if frame is None else under(branch_map, frame, size)


def resize(image: Tensor, size: Size) -> Tensor:
    """Bilinear to `size`, in float32 (float64 for float64) as the released models were trained."""
    if image.shape[-2:] == size:
        return image
    precise = image.to(torch.promote_types(image.dtype, torch.float32))
    return F.interpolate(precise, size=size, mode="bilinear", align_corners=False).to(image.dtype)
