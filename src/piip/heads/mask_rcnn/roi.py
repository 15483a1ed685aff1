"""The part of the levels that lies under a box, at a fixed resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

STRIDES = (4, 8, 16, 32)
"""pixels per cell of the reference's levels"""
FINEST_CELLS = 14
"""a region up to twice this side (in cells of the finest level) is read from that level, up to four times from the
next, ...; with strides from 4 on these are the reference's 56 pixels"""


class RoIAlign(nn.Module):
    """RoIAlign of each image's boxes from the level that suits their size; no parameters.

    Args:
        resolution: cells on each side of the result.
        strides: pixels per cell of the levels that are read (the FPN's extra one is not).
    """

    def __init__(self, resolution: int, strides: Sequence[float] = STRIDES) -> None:
        super().__init__()
        self.resolution, self.strides = resolution, tuple(strides)

    def forward(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Levels [B, C, h, w], finest first, and the boxes [N_i, 4] of each image -> [sum N_i, C, *, *]."""
        image = torch.cat([torch.full((len(box), 1), float(i), device=box.device) for i, box in enumerate(boxes)])
        corners = torch.cat(boxes).float()
        rois = torch.cat((image, corners), dim=1)
        level_of = level_of_boxes(corners, self.strides)
        order = level_of.argsort(stable=True)
        counts = torch.stack([(level_of == index).sum() for index in range(len(self.strides))]).tolist()
        rows = order.split(counts)
        # Levels without a region still take part, so that every parameter has a gradient in a distributed run.
        aligned = [self.align(levels[index], rois[rows[index]], stride) for index, stride in enumerate(self.strides)]
        return torch.cat(aligned)[order.argsort()]

    def align(self, level: Tensor, rois: Tensor, stride: float) -> Tensor:
        """Regions [R, 5] (image, x1, y1, x2, y2, in pixels) of one level -> [R, C, *, *]."""
        # In half precision a corner at 1000 pixels would be off by up to 4; so the level is read in float32.
        dtype = torch.promote_types(level.dtype, torch.float32)
        aligned = roi_align(
            level.to(dtype), rois.to(dtype), self.resolution, 1 / stride, sampling_ratio=0, aligned=True
        )
        return aligned.to(level.dtype)


def level_of_boxes(boxes: Tensor, strides: Sequence[float] = STRIDES) -> Tensor:
    """[N] int64: the level that each of the boxes [N, 4] is read from."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    level = torch.floor(torch.log2(side / (FINEST_CELLS * strides[0]) + 1e-6))
    return level.clamp(0, len(strides) - 1).long()


def cell_averages(start: Tensor, end: Tensor, length: int, cells: int) -> Tensor:
    """[R, cells, length]: weights of the pixels of one direction in the cells of each span (RoIAlign, aligned).

    A cell is the mean of ceil(its side) samples, each interpolated between the two nearest pixels, and nothing for an
    empty span. `start` and `end` [R] are continuous positions: pixel 0 has its centre at 0.5.
    """
    cell_side = ((end - start) / cells)[:, None, None]
    samples = cell_side.ceil().clamp(min=0)
    step = torch.arange(int(samples.max()) if len(start) else 0, device=start.device)
    cell = torch.arange(cells, device=start.device)[:, None]
    position = start[:, None, None] + (cell + (step + 0.5) / samples.clamp(min=1)) * cell_side - 0.5  # [R, cells, S]
    counts = (step < samples) & (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    below = position.floor()
    weight = counts / samples.clamp(min=1)
    upper = weight * (position - below)
    averages = start.new_zeros(len(start), cells, length)
    averages.scatter_add_(2, below.long(), weight - upper)
    return averages.scatter_add_(2, (below.long() + 1).clamp(max=length - 1), upper)
