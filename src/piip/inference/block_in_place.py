"""A transformer block in inference on a CPU: piece by piece, its tokens overwritten.

Legend: n windows, N cells of each, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from piip.backbone.attention import ALONE, Surroundings, bare, mix, project, surroundings
from piip.inference.products import Scratch, add_layer, add_output, output_of, product_of
from piip.ops.paths import PIECE, gelu
from piip.ops.windows import regions
from piip.structures import Size


def run_block_in_place(block: Any, tokens: Tensor, size: Size, window: int | None) -> None:
    """As `run_block`, for a block that takes window order or any order: [B, H*W, C], contiguous, is overwritten."""
    steps = _Steps(block, tokens)
    if window is None:
        for image in tokens.unsqueeze(1):
            steps.attend(image)
            for piece in _pieces(image[0], PIECE):
                steps.feed_forward(piece)
        return
    start = 0
    for region in regions(size, window):
        around = steps.surroundings(surroundings(block.attn, tokens, window, region))
        for part in tokens[:, start : start + region.windows * region.cells]:
            for piece in _pieces(part.unflatten(0, (region.windows, region.cells)), PIECE // region.cells):
                steps.attend(piece, around)
                steps.feed_forward(piece.flatten(0, 1))
        start += region.windows * region.cells


def gamma_of(block: Any, part: int) -> Tensor | None:
    """LayerScale after the attention (1) or the MLP (2), for which timm's two kinds of block have different names."""
    gamma = getattr(block, f"gamma_{part}", None)
    return getattr(getattr(block, f"ls{part}", None), "gamma", None) if gamma is None else gamma


class _Steps:
    """A block's two halves; what does not depend on the tokens is made once."""

    def __init__(self, block: Any, tokens: Tensor) -> None:
        self.block = block
        self.gammas = gamma_of(block, 1), gamma_of(block, 2)
        self.scratch = Scratch(tokens)
        rows = tokens.shape[:-1].numel()
        self.output = output_of(block.attn.proj, self.gammas[0], rows)
        self.bare = bare(block.attn) if self.output is not None else None
        if self.output is not None and self.bare is not None and self.bare.value_bias is not None:
            self.output = self.output.after_shift(self.bare.value_bias)
        plain = type(block.mlp) is Mlp and type(block.mlp.act) is nn.GELU and isinstance(block.mlp.norm, nn.Identity)
        self.fc1 = product_of(block.mlp.fc1) if plain else None
        self.fc2 = output_of(block.mlp.fc2, self.gammas[1], rows) if plain else None

    def surroundings(self, around: Surroundings) -> Surroundings:
        """As this block's attention counts keys and values, without their biases."""
        if self.bare is None or around.key is None or around.value is None:
            return around
        return around._replace(key=torch.zeros_like(around.key), value=torch.zeros_like(around.value))

    def attend(self, tokens: Tensor, around: Surroundings = ALONE) -> None:
        """Add the attention among the N tokens of each window [n, N, C]."""
        attention, normalised = self.block.attn, self.block.norm1(tokens)
        if self.bare is not None:
            qkv = self.scratch.multiply(normalised.flatten(0, 1), self.bare.qkv).view(*tokens.shape[:2], -1)
            if self.bare.query_bias is not None:
                qkv[..., : tokens.shape[-1]] += self.bare.query_bias
            q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
            mixed = mix(q, k, v, around)
        else:
            mixed = mix(*project(attention, normalised), around)
            mixed = getattr(attention, "norm", nn.Identity())(mixed)
        add_layer(tokens, mixed, attention.proj, self.gammas[0], self.output)

    def feed_forward(self, tokens: Tensor) -> None:
        """Add the MLP of tokens [N, C]."""
        mlp, normalised = self.block.mlp, self.block.norm2(tokens)
        if self.fc1 is None or self.fc2 is None:
            add_layer(tokens, normalised, mlp, self.gammas[1], None)
            return
        hidden = gelu(self.scratch.multiply(normalised, self.fc1), mlp.act.approximate)
        add_output(tokens, hidden, self.fc2)


def _pieces(tensor: Tensor, most: int) -> tuple[Tensor, ...]:
    """Parts of about equal length along the first dimension, of `most` if that is 1 or more."""
    count = -(-len(tensor) // max(1, most))
    return tensor.tensor_split(count)
