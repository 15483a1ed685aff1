"""InternViT branches: RMSNorm, and queries and keys normalised over all heads together."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.layers import RmsNorm
from torch import Tensor, nn

from piip import config
from piip.backbone.vit import EPSILON, ViTBranch, plain_vit


class InternViTBranch(ViTBranch):
    """A plain ViT with RMSNorm for LayerNorm and InternViT's attention."""

    def build(self, branch: config.Branch) -> Any:
        """timm's ViT with InternViT's attention in every block."""
        vit = plain_vit(branch, norm=RmsNorm)
        for block in vit.blocks:
            block.attn = WideNormAttention(branch.width, branch.heads, branch.qkv_bias)
        return vit


class WideNormAttention(nn.Module):
    """Attention whose queries and keys are RMS-normalised over the full width, before they are split into heads."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.q_norm = RmsNorm(width, eps=EPSILON)
        self.k_norm = RmsNorm(width, eps=EPSILON)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q_norm(q), self.k_norm(k), v))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
