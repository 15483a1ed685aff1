"""The parts of a pyramid that can be switched off, and the weights that switch them.

A part is off when the weights that let it act are zero: a branch's weight in the merge, the gammas of an exchange. So
whatever runs the model (folded or not, on any device) runs it without that part, and nothing is trained again: what is
measured is what the other parts make of it as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from piip.backbone.interaction import Injector, InteractionUnit
from piip.backbone.merge import Merge
from piip.heads.classification.logits import MergedLogits, TokenLogits
from piip.model import PIIPModel

Kind = Literal["branches", "directions", "groups"]
KINDS: tuple[Kind, ...] = ("branches", "directions", "groups")


@dataclass(frozen=True, eq=False)
class Part:
    """Something that can be switched off."""

    kind: Kind
    name: str
    """for people, such as "branch 0 (1120 px)" """
    weights: tuple[nn.Parameter, ...]
    """which are zero when it is off"""


def parts_of(model: PIIPModel, kinds: Sequence[Kind] = KINDS) -> list[Part]:
    """All parts of these kinds; of a single-branch model there are none.

    "branches": a branch with all it gives, to the merge (or as a classifier's head) and to its neighbours;
    "directions": all that goes from one branch to a neighbour; "groups": all exchanges after a group of blocks.
    Raises ValueError for another kind.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"parts {', '.join(unknown)}: use {', '.join(KINDS)}")
    if len(model.config.backbone.branches) < 2:
        return []
    made = {"branches": _branches, "directions": _directions, "groups": _groups}
    return [part for kind in KINDS if kind in kinds for part in made[kind](model)]


@contextmanager
def switched_off(part: Part) -> Iterator[None]:
    """The model without `part` inside the block; its weights are what they were afterwards."""
    kept = [weight.detach().clone() for weight in part.weights]
    try:
        with torch.no_grad():
            for weight in part.weights:
                weight.zero_()
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(part.weights, kept, strict=True):
                weight.copy_(value)


def _branches(model: PIIPModel) -> list[Part]:
    branches = model.config.backbone.branches
    units = _units(model)
    parts = []
    for index in range(len(branches)):
        given = [weight for module in model.modules() for weight in _merged(module, index)]
        for stage in units:
            if index > 0:
                given += _switches(stage[index - 1].to_fine)
            if index < len(branches) - 1:
                given += _switches(stage[index].to_coarse)
        parts.append(Part("branches", f"branch {index} ({_called(model, index)})", tuple(given)))
    return parts


def _directions(model: PIIPModel) -> list[Part]:
    parts = []
    units = _units(model)
    for fine in range(len(model.config.backbone.branches) - 1):
        down = [weight for stage in units for weight in _switches(stage[fine].to_coarse)]
        up = [weight for stage in units for weight in _switches(stage[fine].to_fine)]
        parts.append(Part("directions", f"branch {fine} to {fine + 1}", tuple(down)))
        parts.append(Part("directions", f"branch {fine + 1} to {fine}", tuple(up)))
    return parts


def _groups(model: PIIPModel) -> list[Part]:
    return [
        Part("groups", f"exchanges after group {index}", tuple(w for unit in stage for w in _of_unit(unit)))
        for index, stage in enumerate(_units(model))
    ]


def _units(model: PIIPModel) -> list[list[InteractionUnit]]:
    """[group][pair of neighbours]"""
    return [list(stage.units) for stage in model.backbone.interactions]  # type: ignore[arg-type]


def _of_unit(unit: InteractionUnit) -> list[nn.Parameter]:
    return [*_switches(unit.to_fine), *_switches(unit.to_coarse)]


def _switches(injector: Injector) -> list[nn.Parameter]:
    return [injector.ca_gamma] + ([injector.cffn_gamma] if injector.ffn is not None else [])


def _merged(module: nn.Module, index: int) -> list[nn.Parameter]:
    """What lets a branch into a merge, or into the mean of a classifier's logits."""
    if isinstance(module, Merge | MergedLogits):
        return [module.weights[index]]
    if isinstance(module, TokenLogits):
        return list(module.heads[index].parameters())
    return []


def _called(model: PIIPModel, index: int) -> str:
    branch = model.config.backbone.branches[index]
    return f"{branch.model or f'{branch.width} wide, {branch.depth} deep'}, {branch.size} px"
