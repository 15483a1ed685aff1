"""Image classification: the branches' last tokens -> class logits (paper, section 3.3, and the released models)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from piip import config
from piip.backbone.merge import resize, to_map
from piip.config import GROUP_NORM_GROUPS
from piip.structures import Batch, BranchState, Prediction, Size

EPSILON = 1e-6


class ClassifierHead(nn.Module):
    """Final states of all branches, finest first -> one logit per class."""

    def __init__(self, head: config.Classifier, backbone: config.Backbone, classes: int) -> None:
        super().__init__()
        self.config = head
        widths = [branch.width for branch in backbone.branches]
        kind = TokenLogits if head.separate_head else MergedLogits
        self.logits = kind(widths, classes, head.dropout)

    def forward(self, states: list[BranchState]) -> Tensor:
        """Class logits [B, K]."""
        logits: Tensor = self.logits(states)
        return logits

    def loss(self, states: list[BranchState], batch: Batch) -> dict[str, Tensor]:
        """`loss_cls`, cross-entropy. A target is the shares of the classes in an image: [K], summing to 1."""
        return {"loss_cls": F.cross_entropy(self(states).float(), torch.stack(batch.targets))}

    def predict(
        self, states: list[BranchState], image_sizes: list[Size], original_sizes: list[Size]
    ) -> list[Prediction]:
        """`probs` [K] float32 of each image, summing to 1. The sizes play no part."""
        return [{"probs": probs} for probs in self(states).float().softmax(dim=1)]


class TokenLogits(nn.Module):
    """A norm and a linear head on the token of the top left patch of each branch; the mean of their logits.

    The released models have class tokens too, which run through the blocks, but the reference keeps these apart from
    the patches and then reads entry 0 of the patches: so the heads were trained, and so they must be read.
    """

    def __init__(self, widths: list[int], classes: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=EPSILON) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(_linear(width, classes) for width in widths)

    def forward(self, states: list[BranchState]) -> Tensor:
        """Logits [B, K]."""
        logits = [
            head(self.dropout(norm(state.tokens[:, 0])))
            for state, norm, head in zip(states, self.norms, self.heads, strict=True)
        ]
        return torch.stack(logits).mean(dim=0)


class MergedLogits(nn.Module):
    """All branches in one map on the finest grid, and one linear head on its mean."""

    def __init__(self, widths: list[int], classes: int, dropout: float) -> None:
        super().__init__()
        width = max(widths)
        self.projections = nn.ModuleList(
            nn.GroupNorm(GROUP_NORM_GROUPS, width)
            if index == len(widths) - 1 and own == width  # the largest branch sets the width and needs no projection
            else TokenProjection(own, width)
            for index, own in enumerate(widths)
        )
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in widths)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.dropout = nn.Dropout(dropout)
        self.head = _linear(width, classes)

    def forward(self, states: list[BranchState]) -> Tensor:
        """Logits [B, K]; class tokens play no part."""
        size = states[0].size
        merged = sum(
            weight * resize(project(to_map(state)), size)
            for state, project, weight in zip(states, self.projections, self.weights, strict=True)
        )
        assert isinstance(merged, Tensor)
        tokens = self.norm(merged.flatten(2).transpose(1, 2))
        logits: Tensor = self.head(self.dropout(tokens.mean(dim=1)))
        return logits


class TokenProjection(nn.Module):
    """GroupNorm, linear to another width, GroupNorm: [B, C, H, W] -> [B, C', H, W]."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUP_NORM_GROUPS, width)
        self.linear = nn.Linear(width, out)
        self.norm2 = nn.GroupNorm(GROUP_NORM_GROUPS, out)

    def forward(self, image: Tensor) -> Tensor:
        """The projected map."""
        projected: Tensor = self.norm2(self.linear(self.norm1(image).movedim(1, -1)).movedim(-1, 1))
        return projected


def _linear(width: int, classes: int) -> nn.Linear:
    linear = nn.Linear(width, classes)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
