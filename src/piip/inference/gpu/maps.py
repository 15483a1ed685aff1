"""The merge and the maps of a backbone in half precision on a GPU, in memory channels last from end to end.

Tokens lie so, matrix products and convolutions are fastest so, and a norm or a resize need not turn the map around.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip.backbone.frames import under
from piip.backbone.merge import ConvMerge, LightMerge, to_map
from piip.inference.gpu.group_norm import Activation, group_norm
from piip.lean.maps import LeanUpsampleTwice
from piip.structures import HALF, BranchState, Size, size_of

DEVICES = ("cuda", "cpu")


class ConvMergeChannelsLast(ConvMerge):
    """The same merged map; each branch's is added as soon as it is there."""

    def forward(self, states: list[BranchState]) -> Tensor:
        """See `Merge`."""
        return _merged(self, states) if _is_wanted(states[0].tokens) else super().forward(states)


class LightMergeChannelsLast(LightMerge):
    """The same."""

    def forward(self, states: list[BranchState]) -> Tensor:
        """See `Merge`."""
        return _merged(self, states) if _is_wanted(states[0].tokens) else super().forward(states)


class UpsampleTwiceChannelsLast(LeanUpsampleTwice):
    """Norm and GELU of pixels one by one in memory, as the two matrix products write and read them."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, 4H, 4W]."""
        parts: list[Any] = list(self)
        first, norm, _gelu, second = parts
        if not _is_wanted(x) or not isinstance(norm, nn.GroupNorm):
            return super().forward(x)
        pixels = first.cells(x.permute(0, 2, 3, 1).contiguous()).flatten(1, 4)  # [B, H*W*2*2, C]
        out: Tensor = second.to_map(group_norm(norm, pixels, "gelu"), size_of(x), sides=2)
        return out


def _is_wanted(tensor: Tensor) -> bool:
    """In half precision, without autograd, on devices that take two dtypes in one operation."""
    return tensor.dtype in HALF and tensor.device.type in DEVICES and not torch.is_grad_enabled()


def _merged(merge: Any, states: list[BranchState]) -> Tensor:
    """One map [B, C, H, W] on the grid of the finest branch."""
    merged: Tensor | None = None
    for project, weight, state in zip(merge.projections, merge.weights, states, strict=True):
        branch_map = _on_grid(_projected(project, to_map(state)), state.frame, states[0].size)
        merged = branch_map * weight if merged is None else torch.addcmul(merged, branch_map, weight)
    assert merged is not None
    return merged


def _projected(project: nn.Sequential, x: Tensor) -> Tensor:
    """A branch's convolutions, each with its norm and ReLU; of some maps the norm and ReLU alone."""
    parts = list(project)
    while parts:
        part = parts.pop(0)
        if not isinstance(part, nn.GroupNorm):
            x = part(x)
            continue
        then: Activation = "none"
        if parts and isinstance(parts[0], nn.ReLU):
            parts.pop(0)
            then = "relu"
        pixels = x.permute(0, 2, 3, 1)
        x = group_norm(part, pixels.flatten(1, 2), then).view(pixels.shape).permute(0, 3, 1, 2)
    return x


def _on_grid(branch_map: Tensor, frame: Tensor | None, size: Size) -> Tensor:
    """As `merge.on_grid`; a resize in half precision sums in float32, too, and rounds once."""
    if frame is not None:
        return under(branch_map, frame, size)
    if size_of(branch_map) == size:
        return branch_map
    return F.interpolate(branch_map, size=size, mode="bilinear", align_corners=False)
