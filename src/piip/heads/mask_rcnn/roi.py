"""The part of the levels that lies under a box, at a fixed resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from piip.inference.roi_products import align_by_products
from piip.ops.paths import in_pieces

STRIDES = (4, 8, 16, 32)
"""pixels per cell of the reference's levels"""
FINEST_CELLS = 14
"""a region up to twice this side (in cells of the finest level) is read from that level, up to four times from the
next, ...; with strides from 4 on these are the reference's 56 pixels"""


def align_rois(
    levels: list[Tensor], boxes: list[Tensor], resolution: int, strides: Sequence[float] = STRIDES
) -> Tensor:
    """RoIAlign each image's boxes [N_i, 4] from the level that suits its size.

    `strides` are the pixels per cell of the levels that are read (the FPN's extra one is not). Returns
    [sum N_i, C, resolution, resolution].
    """
    image = torch.cat([torch.full((len(box), 1), float(i), device=box.device) for i, box in enumerate(boxes)])
    corners = torch.cat(boxes).float()
    rois = torch.cat((image, corners), dim=1)
    level_of = _level(corners, strides)
    order = level_of.argsort(stable=True)
    counts = torch.stack([(level_of == index).sum() for index in range(len(strides))]).tolist()
    rows = order.split(counts)
    # Levels without a region still take part, so that every parameter has a gradient in a distributed run.
    aligned = [_align(levels[index], rois[rows[index]], resolution, stride) for index, stride in enumerate(strides)]
    return torch.cat(aligned)[order.argsort()]


def _align(level: Tensor, rois: Tensor, resolution: int, stride: float) -> Tensor:
    # In half precision a corner at 1000 pixels would be off by up to 4; so the level is read in float32.
    dtype = torch.promote_types(level.dtype, torch.float32)
    if dtype == torch.float32 and in_pieces(level, rois):
        return align_by_products(level.float(), rois, resolution, stride).to(level.dtype)
    aligned = roi_align(level.to(dtype), rois.to(dtype), resolution, 1 / stride, sampling_ratio=0, aligned=True)
    return aligned.to(level.dtype)


def _level(boxes: Tensor, strides: Sequence[float] = STRIDES) -> Tensor:
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    level = torch.floor(torch.log2(side / (FINEST_CELLS * strides[0]) + 1e-6))
    return level.clamp(0, len(strides) - 1).long()
