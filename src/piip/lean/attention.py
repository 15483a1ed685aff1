"""Attention inside windows of equal shape, padded ones without computing their padding.

Legend: n windows, N cells of each, C channels, H heads, D channels per head.

A window that is cut by the edge of the grid is padded with zeros before the projection to queries, keys and values
(`backbone.block`). All those cells have the same key and the same value, the projection's biases, and nobody reads what
they attend to. So one key stands for all m of them, with log(m) added to its logits, which is the same softmax, and
their queries are not computed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import Tensor, nn

from piip.backbone.attention import SelfAttention
from piip.lean.scaled_linear import scaled_linear
from piip.lean.window_order import Region


class Surroundings(NamedTuple):
    """What a window's tokens meet besides each other."""

    bias: Tensor | None = None
    """broadcast to the logits [n, H, N, N], or [n, H, N, N + 1] with padding"""
    key: Tensor | None = None
    """[1, 1, H, D], of a padded cell; None where there is no padding"""
    value: Tensor | None = None
    """[1, 1, H, D]"""


ALONE = Surroundings()


def is_open(attention: nn.Module) -> bool:
    """Whether `attend` knows this attention: its projections can be called one by one."""
    return isinstance(attention, SelfAttention) or (type(attention) is Attention and attention.gate is None)


def surroundings(attention: nn.Module, like: Tensor, window: int, region: Region) -> Surroundings:
    """The same for all windows of a region; `like` [..., C] gives dtype and device."""
    bias = attention.position_bias() if isinstance(attention, SelfAttention) else None
    if region.cells == window**2:
        return Surroundings(bias)
    _, key, value = project(attention, like.new_zeros(1, 1, like.shape[-1]))
    return Surroundings(_padded_bias(bias, window, region, key), key, value)


def attend(attention: Any, tokens: Tensor, around: Surroundings = ALONE, gamma: Tensor | None = None) -> Tensor:
    """Every token attends to the N tokens of its window and to its surroundings: [n, N, C] -> [n, N, C].

    `attention` is one for which `is_open` holds; the result is scaled by `gamma` [C].
    """
    timms = isinstance(attention, Attention)
    dropout = attention.attn_drop.p if timms and attention.training else 0.0
    mixed = mix(*project(attention, tokens), around, dropout)
    if not timms:
        return scaled_linear(attention.proj, mixed, gamma)
    out: Tensor = attention.proj_drop(scaled_linear(attention.proj, attention.norm(mixed), gamma))
    return out


def project(attention: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[n, N, C] -> queries, keys and values, each [n, N, H, D], of an attention for which `is_open` holds."""
    if isinstance(attention, SelfAttention):
        return attention.project(tokens)
    assert isinstance(attention, Attention)
    q, k, v = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
    return attention.q_norm(q), attention.k_norm(k), v


def mix(q: Tensor, k: Tensor, v: Tensor, around: Surroundings = ALONE, dropout: float = 0.0) -> Tensor:
    """Softmax-weighted sums of values, queries, keys and values [n, N, H, D] -> [n, N, C]."""
    if around.key is not None and around.value is not None:
        k = torch.cat((k, around.key.expand(len(k), -1, -1, -1)), dim=1)
        v = torch.cat((v, around.value.expand(len(v), -1, -1, -1)), dim=1)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask = None if around.bias is None else around.bias.to(q.dtype)[None]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(2)


def _padded_bias(bias: Tensor | None, window: int, region: Region, like: Tensor) -> Tensor:
    """What is added to the logits of the cells in the grid and of the one that stands for all others.

    [1, 1, N + 1], or with a position bias [H, N, N + 1].
    """
    if bias is None:
        missing = window**2 - region.cells
        return F.pad(like.new_zeros(1, 1, region.cells), (0, 1), value=math.log(missing))
    grid = bias.unflatten(2, (window, window)).unflatten(1, (window, window))[:, : region.height, : region.width]
    grid = grid.flatten(1, 2)  # [H, N, window, window]
    right, below = grid[..., : region.height, region.width :].flatten(2), grid[..., region.height :, :].flatten(2)
    inside = grid[..., : region.height, : region.width].flatten(2)
    outside = torch.cat((right, below), dim=2).float().logsumexp(dim=2, keepdim=True).to(inside.dtype)
    return torch.cat((inside, outside), dim=2)
