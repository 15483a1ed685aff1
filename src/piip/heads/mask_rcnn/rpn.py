"""Region proposal network (Ren et al. 2015): where, on five levels, there may be an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from piip import config, processes
from piip.heads.mask_rcnn.boxes import RPN_STDS, anchors, clipped, corners, encode
from piip.heads.mask_rcnn.matching import UNDECIDED, Sampler, match_boxes, sample
from piip.heads.mask_rcnn.roi import STRIDES
from piip.structures import Instances, Size

NMS_IOU = 0.7
POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
POSITIVE_FRACTION = 0.5


class RPN(nn.Module):
    """One 3x3 convolution, then objectness and offsets of every anchor; the same weights on all levels."""

    def __init__(self, head: config.MaskRCNN, strides: Sequence[float] = (*STRIDES, 64)) -> None:
        """`strides`: pixels per cell of every level, the FPN's extra one included."""
        super().__init__()
        self.config, self.strides = head, tuple(strides)
        shapes = len(head.anchor_ratios)
        self.conv = nn.Conv2d(head.channels, head.channels, 3, padding=1)
        self.objectness = nn.Conv2d(head.channels, shapes, 1)
        self.deltas = nn.Conv2d(head.channels, shapes * 4, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(cast(Tensor, layer.bias), 0.0)

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness logits [B, H*W*R] and offsets [B, H*W*R, 4] of every level, in the order of its anchors."""
        logits, deltas = [], []
        for level in levels:
            hidden = F.relu(self.conv(level), inplace=True)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1).float())
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)).float())
        return logits, deltas

    def anchors(self, levels: list[Tensor]) -> list[Tensor]:
        """The anchors [H*W*R, 4] of every level."""
        scale, ratios = self.config.anchor_scale, self.config.anchor_ratios
        grids = [(level.shape[-2], level.shape[-1]) for level in levels]
        device = levels[0].device
        return [anchors(grid, stride, scale, ratios, device) for grid, stride in zip(grids, self.strides, strict=True)]

    @torch.no_grad()
    def proposals(
        self,
        logits: list[Tensor],
        deltas: list[Tensor],
        level_anchors: list[Tensor],
        image_sizes: list[Size],
        per_level: int,
        count: int | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Per image: boxes [N, 4] clipped to its valid part and their scores [N], best first.

        `per_level` take part in the suppression, `count` are left at most; None: the config's.
        """
        scores, offsets, references, level_of = [], [], [], []
        for level, (level_logits, level_deltas, own) in enumerate(zip(logits, deltas, level_anchors, strict=True)):
            best, index = level_logits.sigmoid().sort(dim=1, descending=True, stable=True)
            best, index = best[:, :per_level], index[:, :per_level]
            scores.append(best)
            offsets.append(level_deltas.gather(1, index[..., None].expand(-1, -1, 4)))
            references.append(own[index])
            level_of.append(torch.full_like(index[0], level))
        # All images at once, of any size: on a GPU each of these small steps costs its launch.
        together = torch.cat(offsets, 1).flatten(0, 1)[:, None], torch.cat(references, 1).flatten(0, 1)
        boxes = torch.cat(corners(*together, RPN_STDS), dim=-1)[:, 0].unflatten(0, (len(image_sizes), -1))
        every, levels = torch.cat(scores, 1), torch.cat(level_of)
        return [
            self._suppress(clipped(boxes[image], size), every[image], levels, count or self.config.proposals)
            for image, size in enumerate(image_sizes)
        ]

    def _suppress(self, boxes: Tensor, scores: Tensor, level_of: Tensor, count: int) -> tuple[Tensor, Tensor]:
        has_area = ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).nonzero()[:, 0]
        boxes, scores, level_of = boxes[has_area], scores[has_area], level_of[has_area]
        keep = batched_nms(boxes, scores, level_of, NMS_IOU)[:count]
        return boxes[keep], scores[keep]

    def loss(
        self,
        logits: list[Tensor],
        deltas: list[Tensor],
        level_anchors: list[Tensor],
        padded_sizes: list[Size],
        targets: list[Instances],
        samplers: Sequence[Sampler],
    ) -> dict[str, Tensor]:
        """`loss_rpn_cls` and `loss_rpn_bbox`, both divided by the number of anchors sampled in the batch.

        That is the mean of the processes' numbers, so that their mean loss is that of one batch.

        Args:
            padded_sizes: the part of each image that is image or its own padding; anchors centred in the padding that
                only the batch added are not trained on.
            samplers: for each image.
        """
        all_logits, all_deltas, all_anchors = (
            torch.cat(logits, 1),
            torch.cat(deltas, 1),
            torch.cat(level_anchors),
        )
        cls_loss, box_loss = all_logits.sum() * 0, all_deltas.sum() * 0
        sampled = 0
        places = cells(all_anchors)
        for image, (size, target, sampler) in enumerate(zip(padded_sizes, targets, samplers, strict=True)):
            matched = match_boxes(all_anchors, target.boxes, POSITIVE_IOU, NEGATIVE_IOU, NEGATIVE_IOU)
            matched = torch.where(inside(places, size), matched, UNDECIDED)
            chosen = sample(matched, self.config.rpn_batch, POSITIVE_FRACTION, sampler)
            index = torch.cat((chosen.positive, chosen.negative))
            truth = torch.zeros(len(index), device=index.device)
            truth[: len(chosen.positive)] = 1
            cls_loss = cls_loss + F.binary_cross_entropy_with_logits(all_logits[image, index], truth, reduction="sum")
            wanted = encode(target.boxes[chosen.objects], all_anchors[chosen.positive], RPN_STDS)
            box_loss = box_loss + F.l1_loss(all_deltas[image, chosen.positive], wanted, reduction="sum")
            # The reference counts at least one of each kind per image.
            sampled += max(1, len(chosen.positive)) + max(1, len(chosen.negative))
        mean = processes.mean_count(sampled, all_logits.device)
        return {"loss_rpn_cls": cls_loss / mean, "loss_rpn_bbox": box_loss / mean}


def cells(boxes: Tensor) -> Tensor:
    """[N, 2]: where (x, y) the cells of the anchors [N, 4] begin."""
    # Centres are multiples of the stride but for rounding, which must not move one across an image's edge.
    return (boxes[:, :2] + boxes[:, 2:]) / 2 + 0.01


def inside(places: Tensor, size: Size) -> Tensor:
    """[N] bool: which of the places [N, 2] (x, y) are inside an image of `size`."""
    return (places[:, 0] < size[1]) & (places[:, 1] < size[0])
