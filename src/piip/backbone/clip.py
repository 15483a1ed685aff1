"""CLIP's image encoder as a branch."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from piip import config
from piip.backbone.vit import ACTIVATIONS, ViTBranch

EPSILON = 1e-5


class CLIPBranch(ViTBranch):
    """A ViT with a norm after the positions were added, no bias in its patches, and a class token.

    The norm after the last block belongs to CLIP's own output. Checkpoints have it and so it is held, but it is not
    used: the tokens are those of the last block.
    """

    def __init__(self, branch: config.Branch) -> None:
        super().__init__(branch)
        self.vit.norm = nn.LayerNorm(branch.width, eps=EPSILON).requires_grad_(False)

    def build(self, branch: config.Branch) -> Any:
        """timm's model of the architecture in `branch`."""
        assert branch.position_grid is not None
        return VisionTransformer(
            img_size=branch.position_grid * branch.patch,
            patch_size=branch.patch,
            num_classes=0,
            global_pool="",
            embed_dim=branch.width,
            depth=branch.depth,
            num_heads=branch.heads,
            mlp_ratio=branch.mlp_ratio,
            init_values=branch.layer_scale,
            pre_norm=True,
            final_norm=False,
            norm_layer=partial(nn.LayerNorm, eps=EPSILON),
            act_layer=ACTIVATIONS[branch.activation],
            weight_init="skip" if torch.get_default_device().type == "meta" else "",
        )
