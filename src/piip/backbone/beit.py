"""BEiT and BEiTv2 branches: no absolute positions, but a learned bias per relative position inside each window."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from piip import config
from piip.backbone.attention import SelfAttention
from piip.backbone.vit import ViTBranch, plain_vit


class BEiTBranch(ViTBranch):
    """A plain ViT without positions whose attention adds a relative position bias in every window."""

    def build(self, branch: config.Branch) -> Any:
        """timm's ViT with BEiT's attention in every block."""
        vit = plain_vit(branch)
        for block, window in zip(vit.blocks, branch.windows, strict=True):
            assert window is not None
            block.attn = RelativeBiasAttention(branch.width, branch.heads, window, branch.qkv_bias)
        return vit


class RelativeBiasAttention(SelfAttention):
    """Attention among the cells of one window; keys have no bias, as a constant on all keys changes nothing.

    N = window * window cells, T = (2 * window - 1) ** 2 relative positions.
    """

    def __init__(self, width: int, heads: int, window: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qkv_bias else None
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))  # [T, heads]
        self.proj = nn.Linear(width, width)

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[windows, N, C] -> queries, keys and values, each [windows, N, heads, D]."""
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        if self.q_bias is not None and self.v_bias is not None:
            q, v = q + self.q_bias, v + self.v_bias
        q, k, v = (x.unflatten(-1, (self.heads, -1)) for x in (q, k, v))
        return q, k, v

    def position_bias(self) -> Tensor:
        """[heads, N, N] from the table."""
        index = relative_position_index(self.window, self.relative_position_bias_table.device)
        table = self.relative_position_bias_table.t().contiguous()  # so that each head gathers from a row of its own
        return table.index_select(1, index.flatten()).unflatten(1, index.shape)


def relative_position_index(window: int, device: torch.device) -> Tensor:
    """[N, N] row of the bias table for each pair (query cell, key cell) of a window."""
    if torch.compiler.is_compiling():
        return _relative_position_index(window, device)
    return _cached_relative_position_index(window, device)


def _relative_position_index(window: int, device: torch.device) -> Tensor:
    rows = torch.arange(window, device=device).repeat_interleave(window)
    columns = torch.arange(window, device=device).repeat(window)
    down = rows[:, None] - rows[None] + window - 1
    right = columns[:, None] - columns[None] + window - 1
    return down * (2 * window - 1) + right


@lru_cache(maxsize=16)
def _cached_relative_position_index(window: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # an inference tensor in the cache would break a later training step
        return _relative_position_index(window, device)
