"""The two attentions of encoder and decoder, and the layers that both are made of.

Legend: B batch, Q queries, S tokens of all levels, C channels, H heads, L levels, P points per level.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip import config
from piip.heads.dino.positions import Geometry
from piip.heads.precision import without_autocast
from piip.ops.constants import constants
from piip.ops.deformable_attention import DeformableSampling, ring_offsets


class DeformableAttention(nn.Module):
    """Each query samples P points of every level per head around its reference point, or inside its reference box."""

    def __init__(self, head: config.DINO) -> None:
        super().__init__()
        self.heads, self.levels, self.points = head.heads, head.levels, head.points
        samples = self.heads * self.levels * self.points
        self.offsets = nn.Linear(head.channels, samples * 2)
        self.weights = nn.Linear(head.channels, samples)
        self.value = nn.Linear(head.channels, head.channels)
        self.output = nn.Linear(head.channels, head.channels)
        self.sampling = DeformableSampling()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Offsets start on a ring of directions, one per head, the p-th point at distance p; equal weights."""
        with torch.no_grad():
            nn.init.zeros_(self.offsets.weight)
            self.offsets.bias.copy_(ring_offsets(self.heads, self.levels, self.points).flatten())
            nn.init.zeros_(self.weights.weight)
            nn.init.zeros_(self.weights.bias)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, references: Tensor, tokens: Tensor, geometry: Geometry) -> Tensor:
        """query [B, Q, C], references [B, Q, L, 2] (points) or [B, Q, L, 4] (boxes), tokens [B, S, C] -> [B, Q, C]."""
        value = self.value(tokens).masked_fill(geometry.padding[..., None], 0.0).unflatten(-1, (self.heads, -1))
        shape = (self.heads, self.levels, self.points)
        # Positions are kept in float32, see `deformable_attention`.
        offsets = self.offsets(query).float().unflatten(-1, (*shape, 2))
        if references.shape[-1] == 2:  # in cells of each level
            cells = constants([side for height, width in geometry.sizes for side in (width, height)], query.device)
            offsets = offsets / cells.view(-1, 1, 2)
        else:  # the P-th point of the ring lies on the border of the box
            offsets = offsets * references[:, :, None, :, None, 2:] * (0.5 / self.points)
        points = references[:, :, None, :, None, :2] + offsets
        weights = self.weights(query).unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, shape[1:])
        out: Tensor = self.output(self.sampling(value, geometry.sizes, points, weights))
        return out


class SelfAttention(nn.Module):
    """Multi-head attention among the queries; positions are added to queries and keys, not to values."""

    def __init__(self, head: config.DINO) -> None:
        super().__init__()
        self.heads = head.heads
        self.in_proj = nn.Linear(head.channels, 3 * head.channels)
        self.out_proj = nn.Linear(head.channels, head.channels)
        for linear in (self.in_proj, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """x and position [B, Q, C]; blocked [Q, Q] bool: row may not see column -> [B, Q, C]."""
        channels = x.shape[-1]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        query, key = F.linear(x + position, weight[: 2 * channels], bias[: 2 * channels]).chunk(2, dim=-1)
        value = F.linear(x, weight[2 * channels :], bias[2 * channels :])
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=None if blocked is None else ~blocked)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Sequential):
    """Linear, ReLU, linear."""

    def __init__(self, head: config.DINO) -> None:
        super().__init__(
            nn.Linear(head.channels, head.ffn_channels),
            nn.ReLU(inplace=True),
            nn.Linear(head.ffn_channels, head.channels),
        )
        for linear in (self[0], self[2]):
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_uniform_(linear.weight)


class FloatLinear(nn.Linear):
    """A linear layer that computes in float32 whatever precision its surroundings and weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out] float32 (float64 for float64)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with without_autocast(x.device):
            return F.linear(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


CLASS_PRIOR = 0.01
"""what every class's score begins with"""


def class_scores(channels: int, classes: int) -> FloatLinear:
    """[..., C] -> class logits [..., K]."""
    linear = FloatLinear(channels, classes)
    nn.init.constant_(linear.bias, -math.log((1 - CLASS_PRIOR) / CLASS_PRIOR))
    return linear


def box_deltas(channels: int) -> nn.Sequential:
    """[..., C] -> what is added to the logits of a box [..., 4], nothing at first."""
    last = FloatLinear(channels, 4)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(FloatLinear(channels, channels), nn.ReLU(), FloatLinear(channels, channels), nn.ReLU(), last)
