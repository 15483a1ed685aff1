"""InternViT branches: RMSNorm, and queries and keys normalised over all heads together."""

from __future__ import annotations

from typing import Any

from timm.layers import RmsNorm
from torch import Tensor, nn

from piip import config
from piip.backbone.attention import SelfAttention
from piip.backbone.vit import EPSILON, ViTBranch, plain_vit


class InternViTBranch(ViTBranch):
    """A plain ViT with RMSNorm for LayerNorm and InternViT's attention."""

    def build(self, branch: config.Branch) -> Any:
        """timm's ViT with InternViT's attention in every block."""
        vit = plain_vit(branch, norm=RmsNorm)
        for block in vit.blocks:
            block.attn = WideNormAttention(branch.width, branch.heads, branch.qkv_bias)
        return vit


class WideNormAttention(SelfAttention):
    """Attention whose queries and keys are RMS-normalised over the full width, before they are split into heads."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.q_norm = RmsNorm(width, eps=EPSILON)
        self.k_norm = RmsNorm(width, eps=EPSILON)
        self.proj = nn.Linear(width, width)

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, C] -> queries, keys and values, each [B, N, heads, D]."""
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)) for x in (self.q_norm(q), self.k_norm(k), v))
        return q, k, v
