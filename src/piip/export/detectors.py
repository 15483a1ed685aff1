"""The two detectors with fixed numbers of everything. Their boxes are in pixels of the graph's input."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from piip.export.fixed_numbers import NOTHING, RoIAlignOfAll, apart, survivors
from piip.export.network import Network
from piip.heads.dino import DINOHead
from piip.heads.dino.positions import geometry_within, to_corners
from piip.heads.mask_rcnn import MaskRCNNHead
from piip.heads.mask_rcnn.boxes import BOX_STDS, RPN_STDS, corners
from piip.heads.mask_rcnn.roi import RoIAlign
from piip.heads.mask_rcnn.rpn import NMS_IOU
from piip.model import PIIPModel
from piip.structures import size_of

CANDIDATES = 20
"""pairs of region and class that are looked at, best first, for each detection that is kept; the model looks at all"""


class MaskRCNNDetector(Network):
    """Mask R-CNN: `boxes` [B, D, 4], `scores` [B, D], `labels` [B, D] and with a mask head `masks` [B, D, 28, 28].

    Best first; a place without a detection has a score of 0. Masks are probabilities inside the boxes.
    """

    inputs: ClassVar[tuple[str, ...]] = ("images", "sizes")
    any_batch: ClassVar[bool] = False

    def __init__(self, model: PIIPModel) -> None:
        super().__init__()
        assert isinstance(model.head, MaskRCNNHead)
        self.model, self.head = model, model.head
        self.outputs = ("boxes", "scores", "labels") + (("masks",) if self.head.mask is not None else ())
        for module in model.modules():
            if type(module) is RoIAlign:
                module.__class__ = RoIAlignOfAll

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Of images [B, 3, H, W] whose parts without padding are `sizes` [B, 2] float32."""
        head = self.head
        levels = head.fpn(self.model.features(images))
        logits, deltas = head.rpn(levels)
        anchors = head.rpn.anchors(levels)
        proposals = [
            self._proposals([one[i] for one in logits], [one[i] for one in deltas], anchors, sizes[i])
            for i in range(len(images))
        ]
        each = len(proposals[0][0])
        class_logits, offsets = head.box(levels, [boxes for boxes, _ in proposals])
        scores, offsets = class_logits.softmax(-1)[:, :-1].unflatten(0, (-1, each)), offsets.unflatten(0, (-1, each))
        found = [
            self._detections(boxes, exists, scores[i], offsets[i], sizes[i])
            for i, (boxes, exists) in enumerate(proposals)
        ]
        boxes, best, labels = (torch.stack(part) for part in zip(*found, strict=True))
        if head.mask is None:
            return boxes, best, labels
        return boxes, best, labels, torch.stack(head.mask.predict(levels, list(boxes), list(labels)))

    def _proposals(
        self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of one image: boxes [P, 4] and whether there is one [P]; nothing is a box without an area."""
        boxes, scores = [], []
        for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
            count = min(self.head.config.proposals_per_level_test, len(level_logits))
            best, index = level_logits.sigmoid().topk(count)
            box = _clipped(corners(level_deltas[index][:, None], level_anchors[index], RPN_STDS), size)
            boxes.append(box)
            # Levels are suppressed one by one, as no box hides one of another level.
            scores.append(survivors(box, torch.where(_has_area(box), best, NOTHING), NMS_IOU))
        every, score = torch.cat(boxes), torch.cat(scores)
        best, index = score.topk(min(self.head.config.proposals, len(score)))
        exists = best >= 0
        return torch.where(exists[:, None], every[index], 0.0), exists

    def _detections(
        self, proposals: Tensor, exists: Tensor, scores: Tensor, offsets: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of one image: boxes [D, 4], scores [D] and labels [D], from class scores [P, K] and offsets [P, K, 4]."""
        settings, classes = self.head.config, scores.shape[1]
        wanted = torch.where(exists[:, None] & (scores > settings.score_threshold), scores, NOTHING).flatten()
        score, index = wanted.topk(min(len(wanted), CANDIDATES * settings.detections))
        row, label = torch.div(index, classes, rounding_mode="floor"), index % classes
        boxes = _clipped(corners(offsets.flatten(0, 1)[index][:, None], proposals[row], BOX_STDS), size)
        rivals = boxes if settings.class_agnostic else apart(boxes, label, classes, size[0], size[1])
        score = survivors(rivals, score, settings.nms_threshold)
        best, index = score.topk(min(settings.detections, len(score)))
        boxes = torch.where(best[:, None] > 0, boxes[index], 0.0)
        return boxes, best.clamp(min=0), label[index]


class DINODetector(Network):
    """DINO: `boxes` [B, D, 4], `scores` [B, D], `labels` [B, D], best first."""

    inputs: ClassVar[tuple[str, ...]] = ("images", "sizes")
    outputs: ClassVar[tuple[str, ...]] = ("boxes", "scores", "labels")  # type: ignore[misc]

    def __init__(self, model: PIIPModel) -> None:
        super().__init__()
        assert isinstance(model.head, DINOHead)
        self.model, self.head = model, model.head

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Of images [B, 3, H, W] whose parts without padding are `sizes` [B, 2] float32."""
        head = self.head
        levels = head.mapper(self.model.features(images))
        cells = [size_of(level) for level in levels]
        places = geometry_within(cells, sizes, size_of(images), head.config.channels, head.config.temperature)
        memory = head.encoder(levels, places)
        selected = head.selection(memory, places)
        logits, boxes = head.decoder(selected.content.to(memory.dtype), selected.boxes, memory, places)
        scores, classes = logits[-1].sigmoid(), logits.shape[-1]
        count = min(head.config.detections, scores.shape[1] * classes)
        best, index = scores.flatten(1).topk(count, dim=1)
        query = torch.div(index, classes, rounding_mode="floor")
        chosen = boxes[-1].gather(1, query[:, :, None].expand(-1, -1, 4))
        pixels = sizes.flip(1).repeat(1, 2)[:, None]  # width, height, width, height
        return to_corners(chosen).clamp(0, 1) * pixels, best, index % classes


def _clipped(box_corners: tuple[Tensor, Tensor], size: Tensor) -> Tensor:
    """Corners [N, 1, 2] as boxes [N, 4] within `size` [2] (height, width)."""
    limit = size.flip(0)
    return torch.cat([torch.minimum(corner[:, 0].clamp(min=0), limit) for corner in box_corners], dim=-1)


def _has_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
