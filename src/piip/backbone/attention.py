"""Self-attention of the families whose attention timm does not have."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Every token attends to all tokens; what differs between families is how queries, keys and values are made."""

    heads: int
    proj: nn.Module

    def forward(self, tokens: Tensor) -> Tensor:
        """[n, N, C] -> [n, N, C]."""
        q, k, v = (x.transpose(1, 2) for x in self.project(tokens))
        bias = self.position_bias()
        mask = None if bias is None else bias[None].to(q.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n, N, C] -> queries, keys and values, each [n, N, H, D]."""
        raise NotImplementedError

    def position_bias(self) -> Tensor | None:
        """[H, N, N], added to the logits of every query and key; or None."""
        return None
