"""Suppression and regions whose numbers do not depend on the image: what is left out is marked, not removed.

A graph of fixed shapes runs wherever its operations do, and a runtime can plan its memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import nms

from piip.heads.mask_rcnn.roi import RoIAlign, level_of_boxes

NOTHING = -1.0
"""the score of a place in which there is nothing"""


def survivors(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """[N]: the scores, `NOTHING` for boxes [N, 4] that another with a higher score covers by more than `iou`.

    Boxes have no negative corners.
    """
    # Two more that stand apart from all: torch.export takes it that two or more are kept, and stops a run otherwise.
    more = boxes.new_tensor([[-4.0, -4.0, -3.0, -3.0], [-2.0, -2.0, -1.0, -1.0]])
    index = nms(torch.cat((boxes, more)), torch.cat((scores, torch.full_like(more[:, 0], 2 * NOTHING))), iou)
    kept = torch.cat((torch.zeros_like(scores), torch.zeros_like(more[:, 0]))).index_fill(0, index, 1.0)
    return torch.where(kept[: len(scores)] > 0, scores, NOTHING)


def apart(boxes: Tensor, label: Tensor, classes: int, height: float | Tensor, width: float | Tensor) -> Tensor:
    """Boxes [N, 4] of an image, moved so that those of different classes do not meet.

    Each class has its own place in a square of images, not in a row: positions stay small, and so does the rounding.
    """
    columns = math.ceil(math.sqrt(classes))
    x = (label % columns).float() * (width + 1)
    y = torch.div(label, columns, rounding_mode="floor").float() * (height + 1)
    return boxes + torch.stack((x, y, x, y), dim=-1)


class RoIAlignOfAll(RoIAlign):
    """Every region read from every level, but as an empty one where it belongs to another level, which costs little.

    The numbers are those of `RoIAlign`; how many regions each level gives does not matter.
    """

    def forward(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Levels [B, C, h, w], finest first, and the boxes [N_i, 4] of each image -> [sum N_i, C, *, *]."""
        image = torch.cat([torch.full((len(box), 1), float(i), device=box.device) for i, box in enumerate(boxes)])
        corners = torch.cat(boxes).float()
        level_of = level_of_boxes(corners, self.strides)[:, None]
        found: Tensor | None = None
        for index, stride in enumerate(self.strides):
            own = level_of == index
            rois = torch.cat((image, torch.where(own, corners, 0.0)), dim=1)
            aligned = self.align(levels[index], rois, stride)
            found = aligned if found is None else torch.where(own[:, :, None, None], aligned, found)
        assert found is not None
        return found
