"""The box head: class and box of each proposal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from piip import config, processes
from piip.heads.mask_rcnn.boxes import BOX_STDS, decode, encode, scale_boxes
from piip.heads.mask_rcnn.matching import Sample, Sampler, match_boxes, sample
from piip.heads.mask_rcnn.roi import STRIDES, RoIAlign
from piip.structures import Instances, Size

RESOLUTION = 7
POSITIVE_IOU = 0.5
POSITIVE_FRACTION = 0.25


class BoxHead(nn.Module):
    """Two fully connected layers on the 7x7 region; one box per class; the background is the last class."""

    def __init__(self, head: config.MaskRCNN, classes: int, strides: Sequence[float] = STRIDES) -> None:
        super().__init__()
        self.config, self.classes = head, classes
        self.align = RoIAlign(RESOLUTION, strides)
        inputs = head.channels * RESOLUTION**2
        first, second = nn.Linear(inputs, head.fc_channels), nn.Linear(head.fc_channels, head.fc_channels)
        self.fc = nn.ModuleList((first, second))
        self.scores = nn.Linear(head.fc_channels, classes + 1)
        self.deltas = nn.Linear(head.fc_channels, classes * 4)
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer, std in ((self.scores, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, levels: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [N, classes + 1] and offsets [N, classes, 4] of all images' boxes."""
        return self._decide(self.align(levels, boxes).flatten(1))

    def _decide(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The same from regions [N, C * 49]."""
        for layer in self.fc:
            hidden = F.relu(layer(hidden))
        return self.scores(hidden).float(), self.deltas(hidden).unflatten(1, (self.classes, 4)).float()

    def dry_run(self, count: int) -> None:
        """What it costs to decide on `count` boxes, on the meta device."""
        self._decide(torch.empty(count, self.config.channels * RESOLUTION**2, device="meta"))

    @torch.no_grad()
    def sample(
        self, proposals: list[Tensor], targets: list[Instances], samplers: Sequence[Sampler]
    ) -> tuple[list[Tensor], list[Sample]]:
        """The boxes [N_i, 4] to train on per image, positives first: its sampler's of objects and proposals."""
        boxes, samples = [], []
        for proposed, target, sampler in zip(proposals, targets, samplers, strict=True):
            matched = match_boxes(proposed, target.boxes, POSITIVE_IOU, POSITIVE_IOU, POSITIVE_IOU)
            own = torch.arange(len(target.boxes), device=matched.device)
            candidates = torch.cat((target.boxes.to(proposed.dtype), proposed))
            chosen = sample(torch.cat((own, matched)), self.config.roi_batch, POSITIVE_FRACTION, sampler)
            boxes.append(candidates[torch.cat((chosen.positive, chosen.negative))])
            samples.append(chosen)
        return boxes, samples

    def loss(
        self,
        logits: Tensor,
        deltas: Tensor,
        boxes: list[Tensor],
        samples: list[Sample],
        targets: list[Instances],
    ) -> dict[str, Tensor]:
        """`loss_cls` and `loss_bbox`, both averaged over all sampled regions, of all processes."""
        labels, positive, wanted = [], [], []
        start = 0
        for box, chosen, target in zip(boxes, samples, targets, strict=True):
            count = len(chosen.positive)
            label = torch.full((len(box),), self.classes, device=box.device)
            label[:count] = target.labels[chosen.objects]
            labels.append(label)
            positive.append(torch.arange(start, start + count, device=box.device))
            wanted.append(encode(target.boxes[chosen.objects], box[:count], BOX_STDS))
            start += len(box)
        label, index = torch.cat(labels), torch.cat(positive)
        sampled = processes.mean_count(len(label), label.device, least=1)
        predicted = deltas[index, label[index]]
        return {
            "loss_cls": F.cross_entropy(logits, label, reduction="sum") / sampled,
            "loss_bbox": (F.l1_loss(predicted, torch.cat(wanted), reduction="sum") + deltas.sum() * 0) / sampled,
        }

    @torch.no_grad()
    def predict(
        self,
        levels: list[Tensor],
        proposals: list[Tensor],
        image_sizes: list[Size],
        original_sizes: list[Size],
        count: int | None = None,
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per image: boxes [N, 4] in original pixels, scores [N] and labels [N], best first.

        `count` at most; None: the config's `detections`.
        """
        logits, deltas = self(levels, proposals)
        counts = [len(boxes) for boxes in proposals]
        found = []
        for image, (scores, offsets) in enumerate(
            zip(logits.softmax(-1).split(counts), deltas.split(counts), strict=True)
        ):
            boxes = decode(offsets, proposals[image], BOX_STDS, image_sizes[image])
            boxes = scale_boxes(boxes, image_sizes[image], original_sizes[image])
            found.append(self._suppress(boxes, scores[:, :-1], count))
        return found

    def _suppress(self, boxes: Tensor, scores: Tensor, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        row, label = torch.nonzero(scores > self.config.score_threshold, as_tuple=True)
        boxes, scores = boxes[row, label], scores[row, label]
        rivals = torch.zeros_like(label) if self.config.class_agnostic else label
        keep = batched_nms(boxes, scores, rivals, self.config.nms_threshold)[: count or self.config.detections]
        return boxes[keep], scores[keep], label[keep]
