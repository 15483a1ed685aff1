"""Mask R-CNN: pyramid levels -> proposals -> boxes -> masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from piip import config
from piip.heads.draws import Draws
from piip.heads.head import Folding, Head
from piip.heads.mask_rcnn.box import BoxHead
from piip.heads.mask_rcnn.boxes import scale_boxes
from piip.heads.mask_rcnn.fpn import FPN
from piip.heads.mask_rcnn.mask import MaskHead, paste_masks
from piip.heads.mask_rcnn.matching import Sampler, random_sample
from piip.heads.mask_rcnn.roi import STRIDES
from piip.heads.mask_rcnn.rpn import RPN
from piip.heads.targets import check_instances
from piip.structures import Batch, Prediction, Size


class MaskRCNNHead(Head[Tensor]):
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
        self.config: config.MaskRCNN = head
        self.classes = classes
        self.sampler: Sampler = random_sample
        self.fpn = FPN(widths, head.channels)
        self.rpn = RPN(head, (*strides, 2 * strides[-1]))
        self.box = BoxHead(head, classes, strides)
        self.mask = MaskHead(head, classes, strides) if head.masks else None

    @classmethod
    def of(cls, model: config.Model) -> MaskRCNNHead:
        """The head that `model` describes, with fresh weights."""
        assert isinstance(model.head, config.MaskRCNN)
        return cls(model.head, model.backbone.map_widths, len(model.classes), model.backbone.map_strides)

    def check(self, batch: Batch) -> None:
        """Refuse objects without an area or a known label, and without masks where there is a mask head."""
        check_instances(batch.targets, len(batch.images), self.classes, masks=self.mask is not None)

    def loss(self, features: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses, weights included: `loss_rpn_cls`, `loss_rpn_bbox`, `loss_cls`, `loss_bbox`[, `loss_mask`]."""
        levels, targets = self.fpn(features), batch.targets
        samplers = self._samplers(batch)
        anchors = self.rpn.anchors(levels)
        logits, deltas = self.rpn(levels)
        losses = self.rpn.loss(logits, deltas, anchors, batch.padded_sizes, targets, samplers)
        per_level = self.config.proposals_per_level_train
        found = self.rpn.proposals(logits, deltas, anchors, batch.image_sizes, per_level)
        boxes, samples = self.box.sample([box for box, _ in found], targets, samplers)
        scores, box_deltas = self.box(levels, boxes)
        losses |= self.box.loss(scores, box_deltas, boxes, samples, targets)
        if self.mask is not None:
            losses |= self.mask.loss(levels, boxes, samples, targets)
        return losses

    def _samplers(self, batch: Batch) -> list[Sampler]:
        """One for each image."""
        if self.sampler is not random_sample:
            return [self.sampler] * len(batch.images)
        draws = Draws(batch.seeds, batch.images.device)
        return [partial(random_sample, generator=draws.of(image)) for image in range(len(batch.images))]

    @torch.no_grad()
    def predict(self, features_of: Callable[[Tensor], list[Tensor]], batch: Batch) -> list[Prediction]:
        """Detections of each image in pixels of its original, best first; see `structures.Prediction`."""
        levels = self.fpn(features_of(batch.images))
        results = self._detections(levels, batch)
        if self.mask is None:
            return results
        inputs = [
            scale_boxes(result["boxes"], original, size)
            for result, size, original in zip(results, batch.image_sizes, batch.original_sizes, strict=True)
        ]
        probabilities = self.mask.predict(levels, inputs, [result["labels"] for result in results])
        for result, probability, original in zip(results, probabilities, batch.original_sizes, strict=True):
            if batch.paste_masks:
                result["masks"] = paste_masks(probability, result["boxes"], original)
            else:
                result["mask_probabilities"] = probability
        return results

    def _detections(self, levels: list[Tensor], batch: Batch) -> list[Prediction]:
        """Boxes, scores and labels of each image.

        `batch.most_detections`: an image in which more is found than its proposals are enough for is looked at again
        with twice as many, and so on; in others more proposals would hardly find more.
        """
        head = self.config if batch.detections is None else self.config.keeping(batch.detections)
        most = batch.most_detections or 0
        count = max(head.detections, most)
        said, crowded = self.rpn(levels), list(range(len(batch.images)))
        results = self._found(levels, said, batch, crowded, head, count)
        while head.enough_for < most:
            crowded = [image for image in crowded if len(results[image]["scores"]) > head.enough_for]
            if not crowded:
                break
            head = head.keeping(min(2 * head.enough_for, most))
            own = [level[crowded] for level in levels]
            own_said = [one[crowded] for one in said[0]], [one[crowded] for one in said[1]]
            again = self._found(own, own_said, batch, crowded, head, count)
            for image, result in zip(crowded, again, strict=True):
                results[image] = result
        return results

    def _found(
        self,
        levels: list[Tensor],
        said: tuple[list[Tensor], list[Tensor]],
        batch: Batch,
        images: Sequence[int],
        head: config.MaskRCNN,
        count: int,
    ) -> list[Prediction]:
        """In these images of `batch`, by the proposals of `head`; `count` in each at most.

        `levels` and what the proposals' network `said` of them are of these images.
        """
        sizes, originals = ([every[image] for image in images] for every in (batch.image_sizes, batch.original_sizes))
        anchors = self.rpn.anchors(levels)
        found = self.rpn.proposals(*said, anchors, sizes, head.proposals_per_level_test, head.proposals)
        detections = self.box.predict(levels, [box for box, _ in found], sizes, originals, count)
        return [_wanted(*one, batch.least_score) for one in detections]

    @property
    def neck(self) -> nn.Module:
        """The pyramid network: maps -> levels."""
        return self.fpn

    def dry_run(self, features: list[Tensor], image: Size) -> None:
        """As `predict` with as many proposals and detections as it keeps; which ones depends on the image's content."""
        self.rpn(features)
        self.box.dry_run(self.config.proposals)
        if self.mask is not None:
            self.mask.dry_run(self.config.detections)

    def folding(self) -> Folding:
        """The laterals, which alone read the maps."""
        return Folding(map_readers=tuple(self.fpn.laterals))

    @torch.no_grad()
    def as_if_trained(self) -> None:
        """Give one class a score: with fresh weights none reaches the threshold, and no mask is computed."""
        self.box.scores.bias[0] += 5


def _wanted(boxes: Tensor, scores: Tensor, labels: Tensor, least: float) -> Prediction:
    """The detections with a score of at least `least`: each mask takes as much memory as its image has pixels."""
    if least <= 0:
        return {"boxes": boxes, "scores": scores, "labels": labels}
    kept = scores.float() >= least
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
