"""From the branches' last tokens to class logits: as the released models do, or merged (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from piip.backbone.merge import resize, to_map
from piip.config import GROUP_NORM_GROUPS
from piip.structures import BranchState

EPSILON = 1e-6
BRANCH_HEADS = ("head.logits.norms.", "head.logits.heads.")
"""where a model has the norms and linear heads of single branches, of `TokenLogits`"""

Foldable = tuple[tuple[nn.Module, tuple[nn.Module, ...]], ...]
"""`Folding.affine`"""


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

    def affine(self) -> Foldable:
        """The norms, each with the layer that reads it."""
        return tuple((norm, (head,)) for norm, head in zip(self.norms, self.heads, strict=True))


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

    def affine(self) -> Foldable:
        """The norms, each with the layer that reads it."""
        projected = [project for project in self.projections if isinstance(project, TokenProjection)]
        pairs = [(project.norm1, (project.linear,)) for project in projected]
        return (*pairs, (self.norm, (self.head,)))  # the mean over tokens between these two is linear too


class TokenProjection(nn.Module):
    """GroupNorm, linear to another width, GroupNorm: [B, C, H, W] -> [B, C', H, W]."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUP_NORM_GROUPS, width)
        self.linear = _linear(width, out)
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
