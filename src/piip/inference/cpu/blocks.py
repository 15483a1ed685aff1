"""Transformer blocks in inference on a CPU: piece by piece, the tokens overwritten.

Legend: n windows, N cells of each, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from timm.layers import Mlp
from timm.layers.attention import Attention
from torch import Tensor, nn

from piip.backbone.beit import RelativeBiasAttention
from piip.backbone.block import rotary_of
from piip.inference.cpu.products import Product, Scratch, add_layer, product_of
from piip.lean.attention import ALONE, Surroundings, is_open, mix, project, surroundings
from piip.lean.blocks import LeanBlock, LeanBlocks, gamma_of
from piip.lean.situation import PIECE, gelu, in_pieces
from piip.lean.window_order import regions, reorder
from piip.structures import Size


class BlocksInPlace(LeanBlocks):
    """Blocks of a folded branch; those with prefix tokens, rotary positions or their own attention run as ever."""

    def forward(
        self,
        tokens: Tensor,
        size: Size,
        first: int,
        last: int,
        rotary: Tensor | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """See `Blocks`."""
        if self.training or not in_pieces(tokens):
            return super().forward(tokens, size, first, last, rotary, recompute)
        order: int | None = None
        given = tokens
        for index in range(first, last + 1):
            block, turn = self[index], rotary_of(rotary, index)
            assert isinstance(block, LeanBlock)
            in_windows, anyhow = block.takes_window_order(turn), block.takes_any_order(turn)
            wanted = order if anyhow else block.window if in_windows else None
            tokens, order = reorder(tokens, size, order, wanted), wanted
            if (in_windows or anyhow) and _is_folded(block):
                if tokens.data_ptr() == given.data_ptr():  # not ours to overwrite
                    tokens = tokens.clone(memory_format=torch.contiguous_format)
                run_block_in_place(block, tokens, size)
            else:
                tokens = block(tokens, size, turn, in_windows)
        return reorder(tokens, size, order, None)


def _is_folded(block: nn.Module) -> bool:
    """Whether LayerScale is in the layers before it."""
    return gamma_of(block, 1) is None and gamma_of(block, 2) is None


def run_block_in_place(block: LeanBlock, tokens: Tensor, size: Size) -> None:
    """For a block that takes window order or any order: [B, H*W, C] in that order, contiguous, is overwritten."""
    steps = _Steps(block, tokens)
    if block.window is None:
        for image in tokens.unsqueeze(1):
            steps.attend(image)
            for piece in _pieces(image[0], PIECE):
                steps.feed_forward(piece)
        return
    start = 0
    for region in regions(size, block.window):
        around = steps.surroundings(surroundings(block.attn, tokens, block.window, region))
        for part in tokens[:, start : start + region.windows * region.cells]:
            for piece in _pieces(part.unflatten(0, (region.windows, region.cells)), PIECE // region.cells):
                steps.attend(piece, around)
                steps.feed_forward(piece.flatten(0, 1))
        start += region.windows * region.cells


class Bare(NamedTuple):
    """Queries, keys and values of an attention without the biases of keys and values.

    A constant that is added to all keys adds the same to all logits of a query, which the softmax does not see; one
    that is added to all values is added to their mean, so that it can be left to what follows.
    """

    qkv: Product
    """without bias"""
    query_bias: Tensor | None
    """[C]"""
    value_bias: Tensor | None
    """[C]"""
    heads: int


def bare(attention: nn.Module) -> Bare | None:
    """None for an attention of which that is not true: one with norms, of its own kind, or in half precision."""
    if type(attention) is RelativeBiasAttention:
        product = product_of(attention.qkv)
        return None if product is None else Bare(product, attention.q_bias, attention.v_bias, attention.heads)
    if type(attention) is not Attention or not is_open(attention):
        return None
    qkv = product_of(attention.qkv)
    between = (attention.q_norm, attention.k_norm, attention.norm)
    if qkv is None or not all(isinstance(part, nn.Identity) for part in between):
        return None
    query, _, value = (None,) * 3 if qkv.bias is None else qkv.bias.chunk(3)
    return Bare(Product(qkv.weight, None), query, value, attention.num_heads)


class _Steps:
    """A block's two halves; what does not depend on the tokens is made once."""

    def __init__(self, block: LeanBlock, tokens: Tensor) -> None:
        self.block = block
        self.scratch = Scratch(tokens)
        self.output = product_of(block.attn.proj)
        self.bare = bare(block.attn) if self.output is not None else None
        if self.output is not None and self.bare is not None and self.bare.value_bias is not None:
            self.output = self.output.after_shift(self.bare.value_bias)
        mlp: Any = block.mlp
        plain = type(mlp) is Mlp and type(mlp.act) is nn.GELU and isinstance(mlp.norm, nn.Identity)
        self.fc1, self.fc2 = (product_of(mlp.fc1), product_of(mlp.fc2)) if plain else (None, None)

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
            q, k, v = qkv.unflatten(-1, (3, self.bare.heads, -1)).unbind(2)
            mixed = mix(q, k, v, around)
        else:
            mixed = mix(*project(attention, normalised), around)
            mixed = getattr(attention, "norm", nn.Identity())(mixed)
        add_layer(tokens, mixed, attention.proj, self.output)

    def feed_forward(self, tokens: Tensor) -> None:
        """Add the MLP of tokens [N, C]."""
        mlp, normalised = self.block.mlp, self.block.norm2(tokens)
        if self.fc1 is None or self.fc2 is None:
            tokens.add_(mlp(normalised))
            return
        hidden = gelu(self.scratch.multiply(normalised, self.fc1), mlp.act.approximate)
        add_layer(tokens, hidden, mlp.fc2, self.fc2)


def _pieces(tensor: Tensor, most: int) -> tuple[Tensor, ...]:
    """Parts of about equal length along the first dimension, of `most` if that is 1 or more."""
    count = -(-len(tensor) // max(1, most))
    return tensor.tensor_split(count)
