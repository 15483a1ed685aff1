"""Image classification: the branches' last tokens -> losses or probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from piip import config, processes
from piip.heads.classification.logits import MergedLogits, TokenLogits
from piip.heads.head import Folding, Head
from piip.structures import Batch, BranchState, Prediction, Size


class ClassifierHead(Head[BranchState]):
    """Final states of all branches, finest first -> one logit per class."""

    reads: ClassVar[Literal["maps", "states"]] = "states"

    def __init__(self, head: config.Classifier, backbone: config.Backbone, classes: int) -> None:
        super().__init__()
        self.config: config.Classifier = head
        widths = [branch.width for branch in backbone.branches]
        kind = TokenLogits if head.separate_head else MergedLogits
        self.logits = kind(widths, classes, head.dropout)

    @classmethod
    def of(cls, model: config.Model) -> ClassifierHead:
        """The head that `model` describes, with fresh weights."""
        assert isinstance(model.head, config.Classifier)
        return cls(model.head, model.backbone, len(model.classes))

    def forward(self, states: list[BranchState]) -> Tensor:
        """Class logits [B, K]."""
        logits: Tensor = self.logits(states)
        return logits

    def loss(self, features: list[BranchState], batch: Batch) -> dict[str, Tensor]:
        """`loss_cls`, cross-entropy, a mean over the images of all processes.

        A target is the shares of the classes in an image: [K], summing to 1.
        """
        targets = torch.stack(batch.targets)
        share = len(targets) / processes.mean_count(len(targets), targets.device)
        return {"loss_cls": F.cross_entropy(self(features).float(), targets) * share}

    def predict(self, features_of: Callable[[Tensor], list[BranchState]], batch: Batch) -> list[Prediction]:
        """`probs` [K] float32 of each image, summing to 1. The sizes play no part."""
        return [{"probs": probs} for probs in self(features_of(batch.images)).float().softmax(dim=1)]

    def dry_run(self, features: list[BranchState], image: Size) -> None:
        """All of it."""
        self(features)

    def folding(self) -> Folding:
        """The norms' weights."""
        return Folding(affine=self.logits.affine())
