"""Uni-Perceiver branches: a ViT that was pretrained on images and videos."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from piip import config
from piip.backbone.vit import ViTBranch, plain_vit
from piip.structures import Size

FRAMES = 8
"""rows of the temporal embedding; an image is the first frame"""
EPSILON = 1e-5


class UniPerceiverBranch(ViTBranch):
    """A ViT with a spatial and a temporal position embedding and a LayerNorm before its blocks."""

    def __init__(self, branch: config.Branch) -> None:
        super().__init__(branch)
        assert branch.position_grid is not None
        rows = branch.position_prefix + branch.position_grid**2
        self.spatial_pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, branch.width), std=0.02))
        self.temporal_pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(FRAMES, branch.width), std=0.02))

    def build(self, branch: config.Branch) -> Any:
        """timm's ViT without its own positions."""
        vit = plain_vit(branch.model_copy(update={"position_grid": None}), epsilon=EPSILON)
        vit.norm_pre = nn.LayerNorm(branch.width, eps=EPSILON)
        return vit

    def positions(self, size: Size) -> Tensor:
        """The spatial embedding of a grid of `size` and that of the first frame: [1, H*W, C]."""
        return self.resized(self.spatial_pos_embed[None], size) + self.temporal_pos_embed[:1].float()
