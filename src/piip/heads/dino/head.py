"""DINO: maps -> levels -> memory -> queries -> boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from piip import config
from piip.heads.dino.channel_mapper import ChannelMapper
from piip.heads.dino.decoder import Decoder
from piip.heads.dino.denoising import Denoising, blocked_queries, denoising_queries
from piip.heads.dino.encoder import Encoder
from piip.heads.dino.losses import detection_losses
from piip.heads.dino.matching import Matches, Objects, match_queries, objects_of, repeated
from piip.heads.dino.positions import geometry, scale_of, to_corners
from piip.heads.dino.queries import QuerySelection, Selected
from piip.heads.draws import Draws
from piip.heads.head import Folding, Head
from piip.heads.targets import check_instances
from piip.structures import Batch, Prediction, Size, size_of


class Decoded(NamedTuple):
    """What the head says of a batch."""

    logits: Tensor
    """[D, B, Q, K] of every decoder layer"""
    boxes: Tensor
    """[D, B, Q, 4] (centre x, centre y, width, height) in 0..1 of the valid part of each image"""
    selected: Selected
    """what the encoder proposes, with the same number of queries"""
    denoised_logits: Tensor
    """[D, B, R, K] of the denoising queries, R = 0 without them"""
    denoised_boxes: Tensor
    """[D, B, R, 4]"""


class DINOHead(Head[Tensor]):
    """Feature maps -> losses or detections, without anchors and without suppression."""

    def __init__(self, head: config.DINO, widths: Sequence[int], classes: int) -> None:
        """`widths` of the maps, finest first."""
        super().__init__()
        self.config: config.DINO = head
        self.classes = classes
        self.mapper = ChannelMapper(widths, head.channels, head.levels)
        self.encoder = Encoder(head)
        self.selection = QuerySelection(head, classes)
        self.decoder = Decoder(head, classes)
        self.label_embedding = nn.Embedding(classes, head.channels) if head.denoising_queries else None

    @classmethod
    def of(cls, model: config.Model) -> DINOHead:
        """The head that `model` describes, with fresh weights."""
        assert isinstance(model.head, config.DINO)
        return cls(model.head, model.backbone.map_widths, len(model.classes))

    def forward(
        self, features: list[Tensor], image_sizes: list[Size], padded: Size, denoising: Denoising | None = None
    ) -> Decoded:
        """Maps of images of `image_sizes`, padded to one size -> scores and boxes of every layer."""
        return self._decode(self.mapper(features), image_sizes, padded, denoising)

    def _decode(
        self, levels: list[Tensor], image_sizes: list[Size], padded: Size, denoising: Denoising | None = None
    ) -> Decoded:
        sizes = [size_of(level) for level in levels]
        places = geometry(sizes, image_sizes, padded, self.config.channels, self.config.temperature, levels[0].device)
        memory = self.encoder(levels, places)
        selected = self.selection(memory, places)
        content, boxes = selected.content.to(memory.dtype), selected.boxes.detach()
        blocked, extra = None, 0
        if denoising is not None:
            blocked, extra = blocked_queries(denoising, content.shape[1]), denoising.content.shape[1]
            content = torch.cat((denoising.content.to(content.dtype), content), dim=1)
            boxes = torch.cat((denoising.boxes.to(boxes.dtype), boxes), dim=1)
        logits, boxes = self.decoder(content, boxes, memory, places, blocked)
        return Decoded(logits[:, :, extra:], boxes[:, :, extra:], selected, logits[:, :, :extra], boxes[:, :, :extra])

    def check(self, batch: Batch) -> None:
        """Refuse objects without an area or a known label."""
        check_instances(batch.targets, len(batch.images), self.classes, masks=False)

    def loss(self, features: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """The losses, weights included.

        `loss_cls`, `loss_bbox` and `loss_giou` are those of the last decoder layer; `loss_aux` sums up the layers
        before it, `loss_encoder` is for the encoder's proposals and `loss_denoising` (in training mode) for all layers
        on the denoising queries.
        """
        objects = objects_of(batch.targets, batch.image_sizes)
        denoising = self._denoising(batch, objects)
        decoded = self(features, batch.image_sizes, size_of(batch.images), denoising)
        each = self.layer_losses(decoded, objects)  # [D + 1, 3]: the decoder's layers, then the encoder
        losses = dict(zip(("loss_cls", "loss_bbox", "loss_giou"), each[-2], strict=True))
        losses |= {"loss_aux": each[:-2].sum(), "loss_encoder": each[-1].sum()}
        if self.training and self.label_embedding is not None:
            # Without objects the embedding still takes part, so that it has a gradient in a distributed run.
            losses["loss_denoising"] = self.denoising_losses(decoded, objects, denoising).sum() + (
                self.label_embedding.weight.sum() * 0
            )
        return losses

    def layer_losses(self, decoded: Decoded, objects: Objects) -> Tensor:
        """[D + 1, 3]: classification, L1 and GIoU loss of each decoder layer and of the encoder's proposals."""
        proposed = decoded.selected.logits[None], decoded.selected.boxes[None]
        if self.config.encoder_matches == 1:
            logits, boxes = torch.cat((decoded.logits, proposed[0])), torch.cat((decoded.boxes, proposed[1]))
            return detection_losses(logits, boxes, match_queries(logits, boxes, objects), objects)
        every = repeated(objects, self.config.encoder_matches, proposed[0].shape[2])
        matches = match_queries(decoded.logits, decoded.boxes, objects)
        losses = detection_losses(decoded.logits, decoded.boxes, matches, objects)
        return torch.cat((losses, detection_losses(*proposed, match_queries(*proposed, every), every)))

    def denoising_losses(self, decoded: Decoded, objects: Objects, denoising: Denoising | None) -> Tensor:
        """[D, 3]: the same of each decoder layer on the denoising queries."""
        layers = len(decoded.logits)
        if denoising is None:
            none = torch.zeros(layers, 0, dtype=torch.long, device=decoded.logits.device)
            matches = Matches(none, none, none)
        else:
            matches = Matches(
                *(part.expand(layers, -1) for part in (denoising.image, denoising.query, denoising.object))
            )
        return detection_losses(decoded.denoised_logits, decoded.denoised_boxes, matches, objects)

    def _denoising(self, batch: Batch, objects: Objects) -> Denoising | None:
        if not self.training or self.label_embedding is None:
            return None
        labels = [target.labels for target in batch.targets]
        draws = Draws(batch.seeds, batch.images.device)
        return denoising_queries(labels, objects.boxes.split(objects.counts), self.label_embedding, self.config, draws)

    @torch.no_grad()
    def predict(self, features_of: Callable[[Tensor], list[Tensor]], batch: Batch) -> list[Prediction]:
        """Detections of each image in pixels of its original, best first; see `structures.Prediction`."""
        wanted = batch.detections or self.config.detections
        if batch.detections is not None and wanted > self.config.queries:
            raise ValueError(f"detections {wanted}: this DINO has {self.config.queries} queries and finds no more "
                             f"objects than that in an image; train it with --detections {wanted}")  # fmt: skip
        if batch.most_detections is not None:  # which are no more work
            wanted = max(wanted, min(batch.most_detections, self.config.queries))
        decoded = self(features_of(batch.images), batch.image_sizes, size_of(batch.images))
        scores = decoded.logits[-1].sigmoid()  # [B, Q, K]
        best, index = scores.flatten(1).topk(min(wanted, scores[0].numel()), dim=1)
        results = []
        for image, original in enumerate(batch.original_sizes):
            query = torch.div(index[image], scores.shape[-1], rounding_mode="floor")
            boxes = to_corners(decoded.boxes[-1, image, query]).clamp(0, 1) * scale_of(original, scores.device)
            results.append({"boxes": boxes, "scores": best[image], "labels": index[image] % scores.shape[-1]})
        return results

    @property
    def neck(self) -> nn.Module:
        """The channel mapper: maps -> levels."""
        return self.mapper

    def dry_run(self, features: list[Tensor], image: Size) -> None:
        """All that follows the mapper; nothing of it depends on the image's content."""
        self._decode(features, [image], image)

    def folding(self) -> Folding:
        """The first convolutions, which read the maps; and what helps in training only."""
        labels = () if self.label_embedding is None else (self.label_embedding,)
        return Folding(map_readers=self.mapper.map_readers, training_only=labels)
