"""The deformable encoder: every cell of every level reads all levels around its own place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from piip import config
from piip.heads.dino.layers import DeformableAttention, FeedForward
from piip.heads.dino.positions import Geometry


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each added to its input and then normalised."""

    def __init__(self, head: config.DINO) -> None:
        super().__init__()
        self.attention = DeformableAttention(head)
        self.norm1 = nn.LayerNorm(head.channels)
        self.ffn = FeedForward(head)
        self.norm2 = nn.LayerNorm(head.channels)

    def forward(self, tokens: Tensor, positions: Tensor, references: Tensor, geometry: Geometry) -> Tensor:
        """tokens and positions [B, S, C], references [B, S, L, 2] -> [B, S, C]."""
        tokens = self.norm1(tokens + self.attention(tokens + positions, references, tokens, geometry))
        out: Tensor = self.norm2(tokens + self.ffn(tokens))
        return out


class Encoder(nn.Module):
    """Levels -> the memory that queries are chosen from and the decoder reads."""

    def __init__(self, head: config.DINO) -> None:
        super().__init__()
        self.level_embedding = nn.Embedding(head.levels, head.channels)
        self.layers = nn.ModuleList(EncoderLayer(head) for _ in range(head.encoder_layers))

    def forward(self, levels: list[Tensor], geometry: Geometry) -> Tensor:
        """Levels [B, C, h, w], finest first -> memory [B, S, C]: their cells row by row, level after level."""
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        counts = [height * width for height, width in geometry.sizes]
        rows = zip(self.level_embedding.weight, counts, strict=True)
        embedding = torch.cat([row.expand(count, -1) for row, count in rows])
        # Parameters and positions are added in float32; in half precision a sine would be off by a part of a cell.
        positions = geometry.positions + embedding
        positions = positions.to(tokens.dtype)
        references = geometry.centres()
        for layer in self.layers:
            tokens = layer(tokens, positions, references, geometry)
        return tokens
