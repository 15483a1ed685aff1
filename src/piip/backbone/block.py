"""A transformer block of a branch; `block_in_place` has the twin that inference on a CPU runs."""

from __future__ import annotations

import torch
from timm.layers.attention import Attention
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from piip.backbone.attention import attend, is_open, surroundings
from piip.inference.block_in_place import gamma_of
from piip.ops.feed_forward import can_be_cut, feed_forward
from piip.ops.paths import is_plain
from piip.ops.windows import from_windows, join_prefix, regions, split_prefix, to_windows
from piip.structures import Size

AnyBlock = Block | EvaBlock


def takes_window_order(block: AnyBlock, window: int | None, prefix_tokens: int, rotary: bool) -> bool:
    """Whether `run_block` wants its tokens in the order of `window`, see `ops.windows`, and not row by row."""
    return window is not None and not prefix_tokens and not rotary and not is_plain() and is_open(block.attn)


def takes_any_order(block: AnyBlock, window: int | None, prefix_tokens: int, rotary: bool) -> bool:
    """Whether attention is among all tokens and does not ask where they are."""
    return window is None and not prefix_tokens and not rotary and is_open(block.attn)


def run_block(
    block: AnyBlock,
    tokens: Tensor,
    size: Size,
    window: int | None,
    prefix_tokens: int = 0,
    rotary: Tensor | None = None,
) -> Tensor:
    """One pre-norm block on prefix tokens and patches [B, K + H*W, C]."""
    normalised, gamma = block.norm1(tokens), gamma_of(block, 1)
    if takes_window_order(block, window, prefix_tokens, rotary is not None):
        assert window is not None
        attended = _attend_by_region(block.attn, normalised, size, window, gamma)
    elif window is not None:
        attended = _scale(_attend_padded(block.attn, normalised, size, window, prefix_tokens, rotary), gamma)
    else:
        attended = _attend(block.attn, normalised, rotary, gamma)
    tokens, gamma = tokens + block.drop_path1(attended), gamma_of(block, 2)
    if can_be_cut(block.norm2, block.mlp, tokens):
        return tokens + block.drop_path2(feed_forward(tokens, block.norm2, block.mlp, gamma))
    return tokens + block.drop_path2(_scale(block.mlp(block.norm2(tokens)), gamma))


def _attend(attention: nn.Module, tokens: Tensor, rotary: Tensor | None, gamma: Tensor | None = None) -> Tensor:
    if rotary is not None:
        return _scale(attention(tokens, rope=rotary), gamma)
    if type(attention) is Attention and is_open(attention):
        return attend(attention, tokens, gamma=gamma)
    return _scale(attention(tokens), gamma)


def _attend_by_region(attention: nn.Module, tokens: Tensor, size: Size, window: int, gamma: Tensor | None) -> Tensor:
    """Tokens in window order [B, H*W, C]."""
    kinds = regions(size, window)
    parts = []
    for region, part in zip(
        kinds, tokens.split([region.windows * region.cells for region in kinds], dim=1), strict=True
    ):
        windows = part.reshape(-1, region.cells, part.shape[-1])
        around = surroundings(attention, windows, window, region)
        parts.append(attend(attention, windows, around, gamma).reshape(part.shape))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _attend_padded(
    attention: nn.Module, tokens: Tensor, size: Size, window: int, prefix_tokens: int, rotary: Tensor | None
) -> Tensor:
    """Tokens row by row [B, K + H*W, C]; windows padded with zeros before the projection, see `backbone.attention`."""
    batch = len(tokens)
    prefix, patches = tokens[:, :prefix_tokens], tokens[:, prefix_tokens:]
    windows = to_windows(patches, size, window)
    if rotary is not None:
        heads_or_one = rotary if rotary.ndim == 3 else rotary[None]
        rotary = to_windows(heads_or_one, size, window)  # [heads * n, N, 2D]
        rotary = rotary.unflatten(0, (len(heads_or_one), -1)).transpose(0, 1).repeat(batch, 1, 1, 1)
    if prefix_tokens == 0:
        return from_windows(_attend(attention, windows, rotary), size, window)
    attended = _attend(attention, join_prefix(windows, prefix), rotary)
    prefix, windows = split_prefix(attended, prefix_tokens, batch)
    return torch.cat((prefix, from_windows(windows, size, window)), dim=1)


def _scale(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma
