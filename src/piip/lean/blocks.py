"""Transformer blocks whose windows have no padding, and which keep little for the backward pass.

Tokens stay in the order of the windows from block to block, see `window_order`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from piip.backbone.block import Blocks, WindowBlock, rotary_of
from piip.backbone.branch import run_step
from piip.lean.attention import attend, is_open, surroundings
from piip.lean.feed_forward import can_be_cut, feed_forward
from piip.lean.window_order import regions, reorder
from piip.structures import Size


class LeanBlock(WindowBlock):
    """A block that can take its tokens in the order of its windows."""

    mlp: Any
    attn: Any

    def takes_window_order(self, rotary: Tensor | None) -> bool:
        """Whether tokens can be `ordered`."""
        return self.window is not None and self._is_open(rotary)

    def takes_any_order(self, rotary: Tensor | None) -> bool:
        """Whether attention is among all tokens and does not ask where they are."""
        return self.window is None and self._is_open(rotary)

    def _is_open(self, rotary: Tensor | None) -> bool:
        return not self.prefix_tokens and rotary is None and is_open(self.attn)

    def forward(self, tokens: Tensor, size: Size, rotary: Tensor | None = None, ordered: bool = False) -> Tensor:
        """As the plain block; with `ordered`, [B, H*W, C] are in the order of its windows, before and after."""
        normalised, gamma = self.norm1(tokens), gamma_of(self, 1)
        if ordered:
            attended = self.attend_by_region(normalised, size, gamma)
        elif self.window is None and rotary is None and is_open(self.attn):
            attended = attend(self.attn, normalised, gamma=gamma)
        else:
            attended = self._scale(self._attend(normalised, size, rotary), 1)
        tokens, gamma = tokens + self.drop_path1(attended), gamma_of(self, 2)
        if can_be_cut(self.norm2, self.mlp, tokens):
            return tokens + self.drop_path2(feed_forward(tokens, self.norm2, self.mlp, gamma))
        return tokens + self.drop_path2(self._scale(self.mlp(self.norm2(tokens)), 2))

    def attend_by_region(self, tokens: Tensor, size: Size, gamma: Tensor | None) -> Tensor:
        """Attention of normalised tokens in window order [B, H*W, C], scaled by `gamma` [C]."""
        assert self.window is not None
        kinds = regions(size, self.window)
        lengths = [region.windows * region.cells for region in kinds]
        parts = []
        for region, part in zip(kinds, tokens.split(lengths, dim=1), strict=True):
            windows = part.reshape(-1, region.cells, part.shape[-1])
            around = surroundings(self.attn, windows, self.window, region)
            parts.append(attend(self.attn, windows, around, gamma).reshape(part.shape))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class LeanBlocks(Blocks):
    """Blocks whose tokens are put in another order only where the next block's windows ask for it."""

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
        order: int | None = None  # the tokens are in the order of windows of this side, or row by row
        for index in range(first, last + 1):
            block, turn = self[index], rotary_of(rotary, index)
            assert isinstance(block, LeanBlock)
            ordered = block.takes_window_order(turn)
            wanted = order if block.takes_any_order(turn) else block.window if ordered else None
            tokens, order = reorder(tokens, size, order, wanted), wanted
            tokens = run_step(self, partial(block, size=size, rotary=turn, ordered=ordered), tokens, recompute)
        return reorder(tokens, size, order, None)


def gamma_of(block: nn.Module, part: int) -> Tensor | None:
    """LayerScale after the attention (1) or the MLP (2), for which timm's two kinds of block have different names."""
    gamma = getattr(block, f"gamma_{part}", None)
    return getattr(getattr(block, f"ls{part}", None), "gamma", None) if gamma is None else gamma
