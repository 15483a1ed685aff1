"""The neck and the proposals of Mask R-CNN in inference on a CPU.

The finest level of a large photo is larger than all else together. Its sums with the coarser level, and what the region
proposals are made from, are there for some rows at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from piip.heads.mask_rcnn.rpn import RPN
from piip.inference.cpu.strips import Rows, convolved, rows_of, whole
from piip.lean.neck import ChannelsLastFPN
from piip.lean.situation import in_pieces
from piip.structures import size_of


class FPNInPieces(ChannelsLastFPN):
    """The same levels; of the finest one the sum with the coarser ones is never there in whole."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """See `FPN`."""
        if not in_pieces(*features):
            return super().forward(features)
        levels: list[Tensor] = []
        coarser: Tensor | None = None
        for index in reversed(range(len(features))):
            feature = features[index]
            size, batch = size_of(feature), len(feature)
            sums = _sums(self.laterals[index], feature, coarser)
            if index > 0:
                coarser = sums(0, size[0])
                sums = rows_of(coarser)
            levels.insert(0, whole(self.outputs[index], sums, size, batch))
        return [*levels, levels[-1][:, :, ::2, ::2]]


def _sums(lateral: torch.nn.Module, feature: Tensor, coarser: Tensor | None) -> Rows:
    """The lateral of some rows of a map, with the nearest rows of the coarser level."""

    def rows(first: int, last: int) -> Tensor:
        part = lateral(feature[:, :, first:last].contiguous(memory_format=torch.channels_last))
        if coarser is None:
            return part
        height, width = size_of(feature)
        down, across = _nearest(coarser.shape[2], height)[first:last], _nearest(coarser.shape[3], width)
        cells = coarser.permute(0, 2, 3, 1)  # so that what is selected lies in memory channels last, too
        return part + cells.index_select(1, down).index_select(2, across).permute(0, 3, 1, 2)

    return rows


def _nearest(old: int, new: int) -> Tensor:
    """[new]: which of `old` cells of one direction stands for each."""
    cells = torch.arange(old, dtype=torch.float64, device="cpu")[None, None]
    return F.interpolate(cells, size=new)[0, 0].long()


class RPNInPieces(RPN):
    """The same logits and offsets; what they are made from is there for some rows of a level at a time."""

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See `RPN`."""
        if not in_pieces(*levels):
            return super().forward(levels)
        logits, deltas = [], []
        for level in levels:
            strips = []
            for _, hidden in convolved(self.conv, rows_of(level), size_of(level), len(level)):
                hidden = F.relu(hidden, inplace=True)
                strips.append([layer(hidden).permute(0, 2, 3, 1) for layer in (self.objectness, self.deltas)])
            objectness, offsets = (torch.cat(parts, dim=1) for parts in zip(*strips, strict=True))
            logits.append(objectness.flatten(1).float())
            deltas.append(offsets.flatten(1).unflatten(1, (-1, 4)).float())
        return logits, deltas
