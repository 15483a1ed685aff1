"""Transformer blocks and exchanges in inference on a CUDA device: norms, sums and the order of windows in one pass.

The tokens stay row by row. The norm before an attention in windows writes them in the order of the windows, and the sum
after it reads the attention's results in that order, so that nothing is written only to be in another order.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from piip.backbone.block import rotary_of
from piip.backbone.frames import between
from piip.inference.folding.interactions import FoldedInjector, NormalisedLinear
from piip.inference.gpu.gelu import hidden_of
from piip.inference.gpu.rows import (
    added_and_normalised,
    normalised,
    normalised_linear,
    rows_are_normalised,
)
from piip.inference.kept import can_be_kept
from piip.lean.attention import attend
from piip.lean.blocks import LeanBlock, LeanBlocks, gamma_of
from piip.lean.window_order import to_window_order
from piip.structures import BranchState, Size

MOST_KEPT = 256
"""orders; more are made anew each time: what is kept once stays, for a CUDA graph may read it"""

_kept: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}


class BlocksByRows(LeanBlocks):
    """Blocks of a folded branch; with prefix tokens, rotary positions or an attention of its own they run as ever."""

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
        blocks = [(self[index], rotary_of(rotary, index)) for index in range(first, last + 1)]
        if self.training or not all(_takes_rows(block, turn, tokens) for block, turn in blocks):
            return super().forward(tokens, size, first, last, rotary, recompute)
        for block, _ in blocks:
            tokens = _run(block, tokens, size)
        return tokens


def _takes_rows(block: Any, rotary: Tensor | None, tokens: Tensor) -> bool:
    assert isinstance(block, LeanBlock)
    is_open = block.takes_window_order(rotary) or block.takes_any_order(rotary)
    folded = gamma_of(block, 1) is None and gamma_of(block, 2) is None
    return is_open and folded and rows_are_normalised(tokens, block.norm1, block.norm2)


def _run(block: Any, tokens: Tensor, size: Size) -> Tensor:
    """[B, H*W, C] after the block, row by row."""
    if block.window is None:
        back, attended = None, attend(block.attn, normalised(tokens, block.norm1))
    else:
        there, back = _orders(size, block.window, tokens.device)
        attended = block.attend_by_region(normalised(tokens, block.norm1, there), size, None)
    if not _is_mlp(block.mlp):
        tokens, second = added_and_normalised(tokens, attended, block.norm2, back)
        return tokens + block.mlp(second)
    mlp = block.mlp
    tokens, second = added_and_normalised(tokens, attended, block.norm2, back, mlp.fc2.bias)
    return _add_product(tokens, hidden_of(mlp, second), mlp.fc2)


def _is_mlp(mlp: nn.Module) -> bool:
    """Timm's without a norm; its dropout plays no part here."""
    return type(mlp) is Mlp and type(mlp.fc2) is nn.Linear and isinstance(mlp.norm, nn.Identity)


def _add_product(tokens: Tensor, inputs: Tensor, layer: nn.Linear) -> Tensor:
    """Add layer(inputs) without the bias to `tokens` [B, N, C], which are overwritten."""
    tokens.view(-1, tokens.shape[-1]).addmm_(inputs.flatten(0, -2), layer.weight.t())
    return tokens


def _orders(size: Size, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """[H*W] int32 each: which token stands at each place of the window order, and at which place each token stands."""
    key = (size, window, device)
    if key in _kept:
        return _kept[key]
    with torch.inference_mode(False), torch.no_grad():
        rows = torch.arange(size[0] * size[1], device=device)
        there = to_window_order(rows[None, :, None], size, window).flatten()
        back = torch.empty_like(there).scatter_(0, there, rows)
        made = there.int(), back.int()
    if len(_kept) < MOST_KEPT and can_be_kept(there):
        _kept[key] = made
    return made


class InjectorByRows(FoldedInjector):
    """A folded injector whose sums and norms are one pass."""

    def forward(self, receiver: BranchState, source: BranchState) -> BranchState:
        """The receiver's new state."""
        x, ffn = receiver.tokens, self.ffn
        if self.training or ffn is None or not rows_are_normalised(x, self.query_norm, self.ffn_norm):
            return super().forward(receiver, source)
        projected = self.source_norm(_projected(self.projection, source.tokens))
        frame = between(receiver.frame, source.frame)
        query = normalised(x, self.query_norm)
        attended = self.attention(query, receiver.size, projected, source.size, frame)
        x, hidden = added_and_normalised(x, attended, self.ffn_norm, ahead=ffn.fc2.bias)
        return receiver._replace(tokens=_add_product(x, ffn.mix(ffn.fc1(hidden), receiver.size), ffn.fc2))


def _projected(projection: nn.Module, tokens: Tensor) -> Tensor:
    """What folding has left of the projection and the norm after it."""
    out: Tensor
    if isinstance(projection, nn.Sequential):
        linear, norm = projection
        out = linear(tokens)
        return normalised(out, norm) if rows_are_normalised(out, norm) else norm(out)
    out = normalised_linear(projection, tokens) if type(projection) is NormalisedLinear else projection(tokens)
    return out
