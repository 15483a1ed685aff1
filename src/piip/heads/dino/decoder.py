"""The decoder: queries look at each other and at the memory, and every layer moves their boxes a little."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from piip import config
from piip.heads.dino.layers import (
    DeformableAttention,
    FeedForward,
    SelfAttention,
    box_deltas,
    class_scores,
)
from piip.heads.dino.positions import Geometry, embed_boxes, inverse_sigmoid


class DecoderLayer(nn.Module):
    """Self-attention, deformable attention to the memory, feed-forward; each added and then normalised."""

    def __init__(self, head: config.DINO) -> None:
        super().__init__()
        self.self_attention = SelfAttention(head)
        self.norm1 = nn.LayerNorm(head.channels)
        self.cross_attention = DeformableAttention(head)
        self.norm2 = nn.LayerNorm(head.channels)
        self.ffn = FeedForward(head)
        self.norm3 = nn.LayerNorm(head.channels)

    def forward(
        self,
        queries: Tensor,
        position: Tensor,
        references: Tensor,
        memory: Tensor,
        geometry: Geometry,
        blocked: Tensor | None,
    ) -> Tensor:
        """queries and position [B, Q, C], references [B, Q, L, 4], memory [B, S, C] -> [B, Q, C]."""
        queries = self.norm1(queries + self.self_attention(queries, position, blocked))
        queries = self.norm2(queries + self.cross_attention(queries + position, references, memory, geometry))
        out: Tensor = self.norm3(queries + self.ffn(queries))
        return out


class Decoder(nn.Module):
    """Refines boxes layer by layer; every layer's scores and boxes are trained."""

    def __init__(self, head: config.DINO, classes: int) -> None:
        super().__init__()
        count, channels = head.decoder_layers, head.channels
        self.layers = nn.ModuleList(DecoderLayer(head) for _ in range(count))
        self.position = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, channels))
        self.norm = nn.LayerNorm(channels)
        self.scores = nn.ModuleList(class_scores(channels, classes) for _ in range(count))
        self.boxes = nn.ModuleList(box_deltas(channels) for _ in range(count))
        for index in (0, 2):
            nn.init.xavier_uniform_(self.position[index].weight)  # type: ignore[arg-type]

    def forward(
        self, queries: Tensor, boxes: Tensor, memory: Tensor, geometry: Geometry, blocked: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Queries [B, Q, C] with their first boxes [B, Q, 4] -> logits [D, B, Q, K] and boxes [D, B, Q, 4] per layer.

        All boxes are in 0..1 of the valid part of the image; `blocked` [Q, Q] bool: which query may not see which.
        """
        all_logits, all_boxes = [], []
        # A layer's own box is trained through the box before it too ("look forward twice"), but where it looks is not.
        before, reference = boxes, boxes.detach()
        for layer, scores, deltas in zip(self.layers, self.scores, self.boxes, strict=True):
            on_levels = geometry.on_levels(reference)
            position = self.position(embed_boxes(on_levels[:, :, 0], queries.shape[-1]).to(memory.dtype))
            queries = layer(queries, position, on_levels, memory, geometry, blocked)
            normed = self.norm(queries)
            all_logits.append(scores(normed))
            all_boxes.append((deltas(normed) + inverse_sigmoid(before)).sigmoid())
            if len(all_boxes) < len(self.layers):
                # The next layer looks where the not yet normalised state says, as in the reference.
                before = (deltas(queries) + inverse_sigmoid(reference)).sigmoid()
                reference = before.detach()
        return torch.stack(all_logits), torch.stack(all_boxes)
