"""RoIAlign as two matrix products per region: an average down times the map times an average across.

The samples of a region form a grid and bilinear weights are products, so the mean over a cell's samples is one too. A
product reads each of the map's cells under the region once, with all its channels side by side, where the definition
reads four cells per sample and channel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from piip.heads.mask_rcnn.roi import RoIAlign, cell_averages
from piip.lean.situation import in_pieces


class RoIAlignByProducts(RoIAlign):
    """RoIAlign for inference on a CPU; elsewhere as ever."""

    def align(self, level: Tensor, rois: Tensor, stride: float) -> Tensor:
        """See `RoIAlign.align`."""
        if torch.promote_types(level.dtype, torch.float32) == torch.float32 and in_pieces(level, rois):
            return align_by_products(level.float(), rois, self.resolution, stride).to(level.dtype)
        return super().align(level, rois, stride)


def align_by_products(level: Tensor, rois: Tensor, resolution: int, stride: float) -> Tensor:
    """As `torchvision.ops.roi_align(..., sampling_ratio=0, aligned=True)`, for inference on a CPU.

    `level` [B, C, H, W] float32, fastest where it lies channels last; `rois` [R, 5] (image, x1, y1, x2, y2) in pixels.
    Returns [R, C, resolution, resolution], channels last.
    """
    height, width = level.shape[-2:]
    cells = level.permute(0, 2, 3, 1)
    left, top, right, bottom = (rois[:, 1:] / stride).unbind(1)
    down = cell_averages(top, bottom, height, resolution)
    across = cell_averages(left, right, width, resolution)
    images = rois[:, 0].int().tolist()
    rows, columns = _reach(top, bottom, height), _reach(left, right, width)
    out = cells.new_empty(len(rois), resolution, resolution, cells.shape[3])
    for index, (image, row, column) in enumerate(zip(images, rows, columns, strict=True)):
        region = cells[image, row, column]  # [h, w, C]
        beside = across[index, :, column].expand(len(region), -1, -1)
        strips = torch.bmm(beside, region).flatten(1)  # [h, resolution * C]
        torch.mm(down[index, :, row], strips, out=out[index].flatten(1))
    return out.permute(0, 3, 1, 2)


def _reach(start: Tensor, end: Tensor, length: int) -> list[slice]:
    """The pixels of one direction that take part in each span's samples; never none, so that products work."""
    spans = []
    for first, last in zip(start.tolist(), end.tolist(), strict=True):
        low = min(max(math.floor(min(first, last)) - 1, 0), length - 1)
        spans.append(slice(low, min(max(math.ceil(max(first, last)) + 1, low + 1), length)))
    return spans
