"""Mask R-CNN: pyramid levels -> proposals -> boxes -> masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from piip import config
from piip.heads.mask_rcnn.box import BoxHead
from piip.heads.mask_rcnn.boxes import scale_boxes
from piip.heads.mask_rcnn.fpn import FPN
from piip.heads.mask_rcnn.mask import MaskHead, paste_masks
from piip.heads.mask_rcnn.matching import Sampler, random_sample
from piip.heads.mask_rcnn.roi import STRIDES
from piip.heads.mask_rcnn.rpn import RPN
from piip.structures import Instances, Prediction, Size


class MaskRCNNHead(nn.Module):
    """Feature maps -> losses or detections; without `config.masks` it is Faster R-CNN."""

    def __init__(
        self,
        head: config.MaskRCNN,
        widths: Sequence[int],
        classes: int,
        strides: Sequence[float] = STRIDES,
    ) -> None:
        """`widths` and `strides` (pixels per cell) of the maps, finest first."""
        super().__init__()
        self.config = head
        self.sampler: Sampler = random_sample
        self.fpn = FPN(widths, head.channels)
        self.rpn = RPN(head, (*strides, 2 * strides[-1]))
        self.box = BoxHead(head, classes, strides)
        self.mask = MaskHead(head, classes, strides) if head.masks else None

    def loss(
        self,
        features: list[Tensor],
        image_sizes: list[Size],
        padded_sizes: list[Size],
        targets: list[Instances],
    ) -> dict[str, Tensor]:
        """The losses, weights included: `loss_rpn_cls`, `loss_rpn_bbox`, `loss_cls`, `loss_bbox`[, `loss_mask`].

        `image_sizes`: each image without padding; `padded_sizes`: with its own, but not the batch's.
        """
        levels = self.fpn(features)
        anchors = self.rpn.anchors(levels)
        logits, deltas = self.rpn(levels)
        losses = self.rpn.loss(logits, deltas, anchors, padded_sizes, targets, self.sampler)
        per_level = self.config.proposals_per_level_train
        found = self.rpn.proposals(logits, deltas, anchors, image_sizes, per_level)
        boxes, samples = self.box.sample([box for box, _ in found], targets, self.sampler)
        scores, box_deltas = self.box(levels, boxes)
        losses |= self.box.loss(scores, box_deltas, boxes, samples, targets)
        if self.mask is not None:
            losses |= self.mask.loss(levels, boxes, samples, targets)
        return losses

    @torch.no_grad()
    def predict(self, features: list[Tensor], image_sizes: list[Size], original_sizes: list[Size]) -> list[Prediction]:
        """Detections of each image in pixels of its original, best first; see `structures.Prediction`."""
        levels = self.fpn(features)
        per_level = self.config.proposals_per_level_test
        logits, deltas = self.rpn(levels)
        found = self.rpn.proposals(logits, deltas, self.rpn.anchors(levels), image_sizes, per_level)
        detections = self.box.predict(levels, [box for box, _ in found], image_sizes, original_sizes)
        results = [{"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in detections]
        if self.mask is None:
            return results
        inputs = [
            scale_boxes(result["boxes"], original, size)
            for result, size, original in zip(results, image_sizes, original_sizes, strict=True)
        ]
        probabilities = self.mask.predict(levels, inputs, [result["labels"] for result in results])
        for result, probability, original in zip(results, probabilities, original_sizes, strict=True):
            result["masks"] = paste_masks(probability, result["boxes"], original)
        return results
