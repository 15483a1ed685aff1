"""The exchange of features between neighbouring branches (paper, section 3.2).

Legend: B batch, Q receiver's tokens, S source tokens, C receiver's channels, H heads, P points.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from piip import config
from piip.backbone.branch import run_step
from piip.backbone.frames import between, placed
from piip.ops.constants import constants
from piip.ops.deformable_attention import DeformableSampling, cell_centres, ring_offsets
from piip.structures import BranchState, Size


class InteractionStage(nn.Module):
    """All the exchanges after one group of blocks: every pair of neighbours, the finest pair first."""

    def __init__(self, widths: list[int], interaction: config.Interaction) -> None:
        super().__init__()
        self.units = nn.ModuleList(InteractionUnit(fine, coarse, interaction) for fine, coarse in pairwise(widths))

    def forward(self, states: list[BranchState]) -> list[BranchState]:
        """New states of all branches; each later pair sees what the earlier one wrote."""
        states = list(states)
        for i, unit in enumerate(self.units):
            states[i], states[i + 1] = unit(states[i], states[i + 1])
        return states


class InteractionUnit(nn.Module):
    """Both directions between a fine and a coarse branch."""

    def __init__(self, fine: int, coarse: int, interaction: config.Interaction) -> None:
        super().__init__()
        self.checkpointing = False  # see PIIPBackbone.set_checkpointing
        self.to_fine = Injector(fine, coarse, interaction)
        self.to_coarse = Injector(coarse, fine, interaction)

    def forward(self, fine: BranchState, coarse: BranchState) -> tuple[BranchState, BranchState]:
        """Both directions read the features from before this unit."""
        new_coarse = self._inject(self.to_coarse, coarse, fine)
        new_fine = self._inject(self.to_fine, fine, coarse)
        return new_fine, new_coarse

    def _inject(self, injector: nn.Module, receiver: BranchState, source: BranchState) -> BranchState:
        return run_step(self, partial(injector, source=source), receiver, self.checkpointing)


class Injector(nn.Module):
    """One direction: x + ca_gamma * attention(x, source), then x + cffn_gamma * FFN(x)."""

    ca_gamma: nn.Parameter
    cffn_gamma: nn.Parameter

    def __init__(self, width: int, source_width: int, interaction: config.Interaction) -> None:
        super().__init__()
        normalise = interaction.norm == "layernorm"
        projected = width if interaction.projection else source_width
        self.projection: nn.Module = nn.Linear(source_width, width) if interaction.projection else nn.Identity()
        self.query_norm = nn.LayerNorm(width, eps=1e-6) if normalise else nn.Identity()
        self.source_norm: nn.Module = nn.LayerNorm(projected, eps=1e-6) if normalise else nn.Identity()
        attention = DeformableCrossAttention if interaction.attention == "deformable" else CrossAttention
        self.attention = attention(width, projected, interaction)
        # Both gammas start at 0: at first every branch is the pretrained model it came from.
        self.ca_gamma = nn.Parameter(torch.zeros(width))
        self.ffn: ConvFFN | None = None
        if interaction.ffn_ratio is not None:
            self.ffn = ConvFFN(width, int(width * interaction.ffn_ratio))
            self.ffn_norm = nn.LayerNorm(width, eps=1e-6) if normalise else nn.Identity()
            self.cffn_gamma = nn.Parameter(torch.zeros(width))
            self.drop_path = DropPath(interaction.drop_path) if interaction.drop_path else nn.Identity()

    def forward(self, receiver: BranchState, source: BranchState) -> BranchState:
        """The receiver's new state; sizes may differ in any way."""
        x, projected = receiver.tokens, self.source_norm(self.projection(source.tokens))
        frame = between(receiver.frame, source.frame)
        x = x + self.ca_gamma * self.attention(self.query_norm(x), receiver.size, projected, source.size, frame)
        if self.ffn is not None:
            x = x + self.drop_path(self.cffn_gamma * self.ffn(self.ffn_norm(x), receiver.size))
        return receiver._replace(tokens=x)


class DeformableCrossAttention(nn.Module):
    """Each query samples P points per head around its own place in the other branch's map."""

    def __init__(self, width: int, source_width: int, interaction: config.Interaction) -> None:
        super().__init__()
        self.heads, self.points = interaction.heads, interaction.points
        value_width = interaction.value_width(width)
        self.sampling_offsets = nn.Linear(width, self.heads * self.points * 2)
        self.attention_weights = nn.Linear(width, self.heads * self.points)
        self.value = nn.Linear(source_width, value_width)
        self.output = nn.Linear(value_width, width)
        self.sampling = DeformableSampling()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Offsets start on a ring of directions, one per head, the p-th point at distance p; equal weights."""
        with torch.no_grad():
            nn.init.zeros_(self.sampling_offsets.weight)
            self.sampling_offsets.bias.copy_(ring_offsets(self.heads, 1, self.points).flatten())
            nn.init.zeros_(self.attention_weights.weight)
            nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, query: Tensor, size: Size, source: Tensor, source_size: Size, frame: Tensor | None = None
    ) -> Tensor:
        """query [B, Q, C] on a grid of `size`, source [B, S, *] on one of `source_size` -> [B, Q, C].

        `frame`: from places of the query's image to those of the source's, see `frames.between`.
        """
        offsets, logits = self.sampling_offsets(query), self.attention_weights(query)
        out: Tensor = self.output(self.mix(self.value(source), offsets, logits, size, source_size, frame))
        return out

    def mix(
        self,
        value: Tensor,
        offsets: Tensor,
        logits: Tensor,
        size: Size,
        source_size: Size,
        frame: Tensor | None = None,
    ) -> Tensor:
        """value [B, S, H * D], offsets [B, Q, H * P * 2] in cells of the source, logits [B, Q, H * P] -> [B, Q, H * D].

        Positions are kept in float32, see `deformable_attention`.
        """
        offsets = offsets.float().unflatten(-1, (self.heads, 1, self.points, 2))
        height, width = source_size
        scale = constants((1.0 / width, 1.0 / height), offsets.device)
        centres = placed(cell_centres(size, offsets.device), frame)
        points = centres[..., None, None, None, :] + offsets * scale
        weights = logits.unflatten(-1, (self.heads, self.points)).softmax(dim=-1).unsqueeze(3)  # [B, Q, H, 1, P]
        mixed: Tensor = self.sampling(value.unflatten(-1, (self.heads, -1)), [source_size], points, weights)
        return mixed


class CrossAttention(nn.Module):
    """Plain multi-head attention from every query to every source token."""

    def __init__(self, width: int, source_width: int, interaction: config.Interaction) -> None:
        super().__init__()
        self.heads = interaction.heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(source_width, width, bias=False)
        self.value = nn.Linear(source_width, width, bias=False)
        self.output = nn.Linear(width, width)

    def forward(
        self, query: Tensor, size: Size, source: Tensor, source_size: Size, frame: Tensor | None = None
    ) -> Tensor:
        """query [B, Q, C], source [B, S, *] -> [B, Q, C]; the grids and what they show of a photo play no part."""
        q, k, v = (
            tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for tokens in (self.query(query), self.key(source), self.value(source))
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out


class ConvFFN(nn.Module):
    """Linear, 3x3 depthwise convolution on the token grid, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, size: Size) -> Tensor:
        """[B, H*W, C] on a grid of `size` -> [B, H*W, C]."""
        out: Tensor = self.fc2(self.mix(self.fc1(tokens), size))
        return out

    def mix(self, hidden: Tensor, size: Size) -> Tensor:
        """Convolution and GELU of [B, H*W, *] on a grid of `size`."""
        grid = hidden.transpose(1, 2).unflatten(2, size)
        return F.gelu(self.depthwise(grid)).flatten(2).transpose(1, 2)
