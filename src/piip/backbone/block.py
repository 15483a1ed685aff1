"""The transformer blocks of a branch: timm's own parts, attention in windows, a range of blocks at a time."""

from __future__ import annotations

from functools import partial

import torch
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from piip.backbone.branch import run_step
from piip.ops.windows import from_windows, join_prefix, split_prefix, to_windows
from piip.structures import Size


class WindowBlock(nn.Module):
    """A pre-norm block that takes over the parts of timm's block, under timm's names.

    With `window` every token attends to the square of so many by so many cells in which it lies, else to all tokens.
    Windows that reach over the edge of the grid are filled up with zeros *after* the norm and before the projection to
    queries, keys and values, so that padded keys and values are the projection's biases: all released models were
    trained so.
    """

    norm1: nn.Module
    attn: nn.Module
    drop_path1: nn.Module
    norm2: nn.Module
    mlp: nn.Module
    drop_path2: nn.Module

    def __init__(self, block: Block | EvaBlock, window: int | None, prefix_tokens: int) -> None:
        super().__init__()
        self.window, self.prefix_tokens = window, prefix_tokens
        for name, parameter in block.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, part in block.named_children():
            self.add_module(name, part)

    def forward(self, tokens: Tensor, size: Size, rotary: Tensor | None = None) -> Tensor:
        """Prefix tokens and patches [B, K + H*W, C] of a grid of `size` -> the same.

        `rotary` [H*W, 2D], or [heads, H*W, 2D], are rotary positions as timm's attention takes them.
        """
        attended = self._attend(self.norm1(tokens), size, rotary)
        tokens = tokens + self.drop_path1(self._scale(attended, 1))
        return tokens + self.drop_path2(self._scale(self.mlp(self.norm2(tokens)), 2))

    def _attend(self, tokens: Tensor, size: Size, rotary: Tensor | None) -> Tensor:
        if self.window is None:
            return self._attention(tokens, rotary)
        batch, prefix_tokens = tokens.shape[0], self.prefix_tokens
        prefix, patches = tokens[:, :prefix_tokens], tokens[:, prefix_tokens:]
        windows = to_windows(patches, size, self.window)
        if rotary is not None:
            rotary = _rotary_of_windows(rotary, size, self.window, batch)
        if prefix_tokens == 0:
            return from_windows(self._attention(windows, rotary), size, self.window)
        attended = self._attention(join_prefix(windows, prefix), rotary)
        prefix, windows = split_prefix(attended, prefix_tokens, batch)
        return torch.cat((prefix, from_windows(windows, size, self.window)), dim=1)

    def _attention(self, tokens: Tensor, rotary: Tensor | None) -> Tensor:
        out: Tensor = self.attn(tokens) if rotary is None else self.attn(tokens, rope=rotary)
        return out

    def _scale(self, x: Tensor, part: int) -> Tensor:
        """LayerScale after the attention (1) or the MLP (2): modules of timm's Block, parameters of its EvaBlock."""
        layer_scale, gamma = getattr(self, f"ls{part}", None), getattr(self, f"gamma_{part}", None)
        if layer_scale is not None:
            x = layer_scale(x)
        return x if gamma is None else x * gamma


class Blocks(nn.ModuleList):
    """All blocks of a branch, in order."""

    def forward(
        self,
        tokens: Tensor,
        size: Size,
        first: int,
        last: int,
        rotary: Tensor | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """Prefix tokens and patches [B, K + H*W, C] after blocks `first` to `last`, both included.

        Args:
            tokens: before block `first`.
            size: of the grid of patches.
            first: the first block to run.
            last: the last one.
            rotary: positions [H*W, 2D], or [depth, heads, H*W, 2D] where each block has its own.
            recompute: in training, compute each block again in the backward pass and keep nothing of it until then.
        """
        for index in range(first, last + 1):
            step = partial(self[index], size=size, rotary=rotary_of(rotary, index))
            tokens = run_step(self, step, tokens, recompute)
        return tokens


def rotary_of(rotary: Tensor | None, block: int) -> Tensor | None:
    """The rotary positions of one block."""
    return rotary[block] if rotary is not None and rotary.ndim == 4 else rotary


def _rotary_of_windows(rotary: Tensor, size: Size, window: int, batch: int) -> Tensor:
    """[batch * n, heads or 1, window**2, 2D]: of each window's own place."""
    heads_or_one = rotary if rotary.ndim == 3 else rotary[None]
    windows = to_windows(heads_or_one, size, window)  # [heads * n, N, 2D]
    return windows.unflatten(0, (len(heads_or_one), -1)).transpose(0, 1).repeat(batch, 1, 1, 1)
