"""RoIAlign as two matrix products per region: an average down times the map times an average across.

The samples of a region form a grid and bilinear weights are products, so the mean over a cell's samples is one too. A
product reads each of the map's cells under the region once, with all its channels side by side, where the definition
reads four cells per sample and channel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
    averages = torch.zeros(len(start), cells, length, device=start.device)
    averages.scatter_add_(2, below.long(), weight - upper)
    return averages.scatter_add_(2, (below.long() + 1).clamp(max=length - 1), upper)


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
