"""A model: backbone and head joined. Nothing else joins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from piip import config
from piip.backbone import PIIPBackbone
from piip.devices import float32_by_default
from piip.heads import Head, build_head
from piip.heads.precision import loss_in_float32
from piip.processes import uncounted
from piip.structures import Batch, BranchState, Prediction, View


class PIIPModel(nn.Module):
    """Everything between a normalised batch and its losses or predictions."""

    @float32_by_default()
    def __init__(self, model: config.Model) -> None:
        super().__init__()
        self.config = model
        self.backbone = PIIPBackbone(model.backbone)
        self.head: Head = build_head(model)
        self.folded = False

    def forward(self, images: Tensor) -> Tensor:
        """The head's own output for [B, 3, H, W]: class logits, [B, K] of a classifier, [B, K, h, w] of a segmentor.

        Raises NotImplementedError for a detector, whose output is no one tensor; it has `predict`.
        """
        if self.config.task == "detection":
            raise NotImplementedError("a detector's output is no one tensor; use predict, or loss with targets")
        logits: Tensor = self.head(self.features(images))
        return logits

    def features(self, images: Tensor, views: Sequence[View | None] = ()) -> list[Tensor] | list[BranchState]:
        """What the head reads of images [B, 3, H, W]: feature maps, or the final states of the branches.

        `views`: see `Batch.views`.
        """
        seen = {"views": views} if views else {}
        states: list[BranchState]
        if self.head.reads == "states":
            states = self.backbone.states(images, **seen)
            return states
        maps: list[Tensor] = self.backbone(images, **seen)
        return maps

    def features_of(self, batch: Batch) -> Callable[[Tensor], Any]:
        """`features` of images of a batch, for a head's `predict`."""
        return partial(self.features, views=batch.views) if batch.views else self.features

    @float32_by_default()
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, weights included: their sum is what training minimises.

        Under autocast the backbone is in half precision and the head in float32.

        Raises:
            ValueError: a detector's targets are wrong, see `heads.targets`.
            RuntimeError: this is a folded copy.
        """
        if self.folded:
            raise RuntimeError("this is a folded copy for inference; train the model it was made from")
        if not batch.images.is_meta:  # where targets have no values
            self.head.check(batch)
        if not batch.spare:
            return loss_in_float32(self.head, self.features(batch.images, batch.views), batch)
        with uncounted():  # takes part in all that the processes do together, and adds nothing
            losses = loss_in_float32(self.head, self.features(batch.images, batch.views), batch)
        return {name: 0 * loss for name, loss in losses.items()}

    @float32_by_default()
    def predict(self, batch: Batch) -> list[Prediction]:
        """The prediction for each image of `batch`, none for no images; `batch.targets` play no part."""
        return self.head.predict(self.features_of(batch), batch) if len(batch.images) else []
