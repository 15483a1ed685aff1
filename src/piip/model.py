"""A model: backbone and head joined. Nothing else joins them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from piip import config
from piip.backbone import PIIPBackbone
from piip.heads.classification import ClassifierHead
from piip.heads.dino import DINOHead
from piip.heads.mask_rcnn import MaskRCNNHead
from piip.heads.targets import check_instances
from piip.heads.upernet import UperNetHead
from piip.structures import Batch, BranchState, Prediction, Size, size_of


class PIIPModel(nn.Module):
    """Everything between a normalised batch and its losses or predictions."""

    def __init__(self, model: config.Model) -> None:
        super().__init__()
        self.config = model
        self.backbone = PIIPBackbone(model.backbone)
        self.head: Any = build_head(model)
        self.folded = False

    def forward(self, images: Tensor) -> Tensor:
        """The head's own output for [B, 3, H, W]: class logits, [B, K] of a classifier, [B, K, h, w] of a segmentor.

        Raises NotImplementedError for a detector, whose output is no one tensor; it has `predict`.
        """
        if self.config.task == "detection":
            raise NotImplementedError("a detector's output is no one tensor; use predict, or loss with targets")
        logits: Tensor = self.head(self.features(images))
        return logits

    def features(self, images: Tensor) -> list[Any]:
        """What the head reads: feature maps, or for a classifier the final states of the branches."""
        return self.backbone.states(images) if isinstance(self.head, ClassifierHead) else self.backbone(images)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, weights included: their sum is what training minimises.

        Under autocast the backbone is in half precision and the head in float32 (reference, "Recipes").

        Raises:
            ValueError: a detector's targets are wrong, see `heads.targets`.
            RuntimeError: this is a folded copy.
        """
        if self.folded:
            raise RuntimeError("this is a folded copy for inference; train the model it was made from")
        if self.config.task == "detection" and not batch.images.is_meta:
            masks = isinstance(self.head, MaskRCNNHead) and self.head.mask is not None
            check_instances(batch.targets, len(batch.images), len(self.config.classes), masks)
        features, device = self.features(batch.images), batch.images.device.type
        if device == "meta" or not torch.is_autocast_enabled(device):  # which torch refuses to answer for meta
            return self._head_loss(features, batch)
        with torch.autocast(device, enabled=False):
            return self._head_loss([in_float32(feature) for feature in features], batch)

    def _head_loss(self, features: list[Any], batch: Batch) -> dict[str, Tensor]:
        if isinstance(self.head, MaskRCNNHead):
            return self.head.loss(features, batch.image_sizes, self._padded_sizes(batch), batch.targets)
        if isinstance(self.head, DINOHead):
            return self.head.loss(features, batch.image_sizes, size_of(batch.images), batch.targets)
        return self.head.loss(features, batch)

    def predict(self, images: Tensor, image_sizes: list[Size], original_sizes: list[Size]) -> list[Prediction]:
        """Predictions for each image of a batch.

        Args:
            images: [B, 3, H, W], normalised and padded right and below.
            image_sizes: (height, width) of the part of each image that is not padding.
            original_sizes: (height, width) of each image before its resize; the predictions' pixels.

        Returns:
            One dict per image, see `structures.Prediction`; none for no images.

        Raises:
            ValueError: where the numbers of images and sizes differ.
        """
        if not len(images) == len(image_sizes) == len(original_sizes):
            raise ValueError(
                f"{len(images)} images, but {len(image_sizes)} image_sizes and {len(original_sizes)} original_sizes"
            )
        if not len(images):
            return []
        if isinstance(self.head, UperNetHead):  # may cut the images into windows before the backbone sees them
            return self.head.predict(self.backbone, images, image_sizes, original_sizes)
        if isinstance(self.head, DINOHead):
            return self.head.predict(self.features(images), image_sizes, size_of(images), original_sizes)
        return self.head.predict(self.features(images), image_sizes, original_sizes)

    def _padded_sizes(self, batch: Batch) -> list[Size]:
        """Each image with its own padding, but not that of larger images in the batch."""
        multiple = self.config.preprocess.pad_multiple
        limit = batch.images.shape[-2:]
        return [
            (min(limit[0], _round_up(height, multiple)), min(limit[1], _round_up(width, multiple)))
            for height, width in batch.image_sizes
        ]


def in_float32(feature: Any) -> Any:
    """A map or a branch's state in at least single precision."""
    if isinstance(feature, BranchState):
        return BranchState(in_float32(feature.tokens), feature.size, in_float32(feature.prefix))
    return None if feature is None else feature.to(torch.promote_types(feature.dtype, torch.float32))


def build_head(model: config.Model) -> nn.Module:
    """The head that `model.head` describes, with fresh weights."""
    head, classes = model.head, len(model.classes)
    if isinstance(head, config.MaskRCNN):
        return MaskRCNNHead(head, model.backbone.map_widths, classes, model.backbone.map_strides)
    if isinstance(head, config.DINO):
        return DINOHead(head, model.backbone.map_widths, classes)
    if isinstance(head, config.UperNet):
        return UperNetHead(head, model.backbone.map_widths, classes, model.backbone.smallest_image)
    return ClassifierHead(head, model.backbone, classes)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
