"""What PIIP needs of a branch: embed an image, run a range of blocks on the tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from piip import config
from piip.structures import BranchState

State = TypeVar("State", Tensor, BranchState)


class Branch(Protocol):
    """A backbone cut open, so that others can read and write its tokens between blocks.

    Its pretrained part is one timm module (`vit` or `convnext`) with timm's parameter names.
    """

    config: config.Branch
    checkpointing: bool
    """recompute each block in the backward pass; at first as the config says"""

    def embed(self, images: Tensor) -> BranchState:
        """[B, 3, H, W] -> tokens with their positions, before the first block.

        Raises ValueError for an image that is too small to give a single token.
        """

    def __call__(self, state: BranchState, first: int, last: int) -> BranchState:
        """The state after blocks `first` to `last`, both included."""

    def layer(self, parameter: str) -> int:
        """Depth of a parameter, by its name within the branch: 0 in the embedding, k + 1 in block k."""


def run_step(module: nn.Module, step: Callable[[State], State], tokens: State, recompute: bool) -> State:
    """`step(tokens)`; with `recompute`, its activations are not stored while `module` trains."""
    if recompute and module.training and torch.is_grad_enabled():
        result: State = checkpoint(step, tokens, use_reentrant=False)
        return result
    return step(tokens)


def drop_path_rates(branch: config.Branch, blocks: int) -> list[float]:
    """Stochastic depth of each of `blocks` blocks."""
    if branch.drop_path_schedule == "constant":
        return [branch.drop_path] * blocks
    return [branch.drop_path * index / max(1, blocks - 1) for index in range(blocks)]


def drop_path(rate: float) -> nn.Module:
    """A stochastic-depth layer, or nothing for rate 0."""
    return DropPath(rate) if rate else nn.Identity()


def restore_buffers(module: nn.Module) -> None:
    """Compute the buffers that no file holds (rotary frequencies), after weights replaced those on the meta device."""
    part: Any
    for part in module.modules():
        lost = {name: buffer for name, buffer in part.named_buffers(recurse=False) if buffer.is_meta}
        if not lost:
            continue
        for name, buffer in lost.items():
            setattr(part, name, torch.empty_like(buffer, device="cpu"))
        part.init_non_persistent_buffers()
