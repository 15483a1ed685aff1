"""Parts of a model that keep their weights: no gradients, nothing in the optimizer, and no randomness in training.

What lies before every trained weight keeps no activations for the backward pass, as autograd has no use for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from piip import config
from piip.backbone.block import Blocks
from piip.console import Terminal, say

PLACES = {
    "backbone": ("backbone.",),
    "branches": ("backbone.branches.",),
    "interactions": ("backbone.interactions.",),
    "merge": ("backbone.merge.", "backbone.earlier_merges."),
    "maps": ("backbone.maps.",),
    "head": ("head.",),
}
"""whole parts, and how the names of their parameters begin"""
OF_A_BRANCH = re.compile(r"(?:backbone\.)?(?:branches\.)?(\d+)(?:\.(embed)|\.blocks\.(\d+)(?:-(\d+))?)?")
FORMS = "2 (a branch), branches.2.blocks.0-8, branches.2.embed, " + ", ".join(PLACES)


def named_parts(value: object) -> object:
    """The parts that a user names: 2, "2", "2,branches.1.blocks.0-8" or a list of these. ValueError for others."""
    if isinstance(value, str | int):
        value = [value]
    if not isinstance(value, Iterable):
        return value
    parts = [part.strip() for text in value for part in str(text).split(",")]
    for part in parts:
        if part not in PLACES and not OF_A_BRANCH.fullmatch(part):
            raise ValueError(f"{part!r} is no part of a model that can be frozen; these are: {FORMS}")
    return tuple(parts)


def check_parts(backbone: config.Backbone, parts: Iterable[str]) -> None:
    """ValueError for a branch or block that the backbone does not have."""
    for part in parts:
        if part not in PLACES:
            _layers(part, backbone)


def freeze(model: nn.Module, parts: tuple[str, ...], adapters: bool = False) -> None:
    """Take the gradients of `parts` away. ValueError where there are no such parts, or nothing would be left to train.

    `adapters`: there will be some to train.
    Until they are given back the model must be put in training mode by `train_mode`.
    """
    if not parts:
        return
    if not adapters:
        check_trained(model, parts)
    for name, parameter in model.named_parameters():
        if _is_frozen(model, parts, name):
            parameter.requires_grad_(False)


def check_trained(model: nn.Module, parts: tuple[str, ...]) -> None:
    """ValueError where nothing would be left to train."""
    if trained(model, parts) == 0:
        raise ValueError(f"freeze {', '.join(parts)}: that is all of the model; leave something to train")


def trained(model: nn.Module, parts: tuple[str, ...]) -> int:
    """How many parameters, as single numbers, `parts` leave to train."""
    return sum(part.numel() for name, part in model.named_parameters() if not _is_frozen(model, parts, name))


def train_mode(model: nn.Module, parts: tuple[str, ...]) -> None:
    """`model.train()`, but frozen parts compute as in a prediction: no dropout, no drop path, norms as they are."""
    model.train()
    for name, module in model.named_modules() if parts else ():
        if not _recomputes(module) and _is_frozen(model, parts, f"{name}."):
            module.training = False


def _recomputes(module: nn.Module) -> bool:
    """Whether it asks its own mode if activations are to be computed again: gradients may still pass through it."""
    return isinstance(module, Blocks) or hasattr(module, "checkpointing")


def _is_frozen(model: Any, parts: tuple[str, ...], name: str) -> bool:
    return any(name.startswith(PLACES[part]) if part in PLACES else _is_within(model, part, name) for part in parts)


def _is_within(model: Any, part: str, name: str) -> bool:
    index, layers = _layers(part, model.config.backbone)
    prefix = f"backbone.branches.{index}."
    return name.startswith(prefix) and model.backbone.branches[index].layer(name.removeprefix(prefix)) in layers


def _layers(part: str, backbone: config.Backbone) -> tuple[int, range]:
    """A branch, and which of its layers: 0 is the embedding, k + 1 block k.

    Blocks from the first on take the embedding with them, which would be trained below frozen blocks otherwise.
    """
    match = OF_A_BRANCH.fullmatch(part)
    assert match is not None  # `named_parts`
    index, embedding, first, last = int(match[1]), match[2], match[3], match[4]
    if index >= len(backbone.branches):
        raise ValueError(f"freeze {part}: the model has branches 0 (the finest) to {len(backbone.branches) - 1}")
    depth = backbone.branches[index].depth
    if embedding:
        return index, range(1)
    if first is None:
        return index, range(depth + 1)
    begin, end = int(first), int(last or first)
    if not begin <= end < depth:
        raise ValueError(f"freeze {part}: branch {index} has blocks 0 to {depth - 1}, and a range is FIRST-LAST")
    return index, range(begin + 1 if begin else 0, end + 2)


def note_frozen_at_random(model: config.Model, parts: Iterable[str]) -> None:
    """Say that a model with fresh weights is about to keep some that no training made."""
    branches = model.backbone.branches
    random = [str(index) for index in _touched(parts, model.backbone) if not branches[index].pretrained]
    if random:
        which, them = ("branch {} is", "it") if len(random) == 1 else ("branches {} are", "them")
        say(Terminal(stderr=True), f"WARNING: {which.format(', '.join(random))} frozen with random weights: start from "
            f"trained ones, or fill {them} with pretrained ones (--branch-weights)", style="bold red")  # fmt: skip


def _touched(parts: Iterable[str], backbone: config.Backbone) -> list[int]:
    """The branches of which anything is frozen."""
    parts = set(parts)
    if parts & {"backbone", "branches"}:
        return list(range(len(backbone.branches)))
    return sorted({int(match[1]) for part in parts if (match := OF_A_BRANCH.fullmatch(part))})
