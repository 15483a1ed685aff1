"""Several heads on one backbone: it runs once for an image, and every head reads what it computed.

What is shared is the branches with their interactions. Merge and maps are each model's own, as they are folded into
what follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from piip.model import PIIPModel
from piip.prediction.predictor import Predictor
from piip.structures import BranchState, View

SHARED = ("backbone.branches.", "backbone.interactions.")


def check_shared(models: Sequence[PIIPModel]) -> None:
    """ValueError where models do not have one backbone, to the last bit, that sees the same pixels."""
    first = models[0]
    for number, other in enumerate(models[1:], 1):
        one, its = first.config.backbone, other.config.backbone
        if (one.branches, one.interaction) != (its.branches, its.interaction):
            raise ValueError(f"models 0 and {number} have different backbones: other branches or interactions")
        if first.config.preprocess != other.config.preprocess:
            raise ValueError(f"models 0 and {number} prepare images differently: {first.config.preprocess} and "
                             f"{other.config.preprocess}")  # fmt: skip
        mine, theirs = first.state_dict(), other.state_dict()
        different = [
            name for name in mine if name.startswith(SHARED) and not torch.equal(mine[name].cpu(), theirs[name].cpu())
        ]
        if different:
            raise ValueError(f"models 0 and {number} have other weights in {len(different)} tensors of the backbone, "
                             f"such as {different[0]}: train heads with --freeze branches,interactions")  # fmt: skip


class SharedStates:
    """The states of one batch of images after those groups of blocks that something reads."""

    def __init__(self, groups: Iterable[int]) -> None:
        self.groups = frozenset(groups)
        self.seen: list[Tensor] = []
        """the images, and those of the views with their frames"""
        self.after: dict[int, list[BranchState]] = {}

    @contextmanager
    def within(self, backbone: Any) -> Iterator[None]:
        """Inside the block `backbone` takes the states from here if they are those of its images, else leaves its own.

        The copies for inference work in place, so that it gets and leaves copies.
        """
        embed, run_group, known = backbone.embed, backbone.run_group, [False]

        def embed_once(images: Tensor, views: Sequence[View | None] = ()) -> list[BranchState]:
            seen = [images, *(part for view in views if view is not None for part in view)]
            same = len(self.seen) == len(seen) and all(map(_equal, self.seen, seen))
            known[0] = same and len(self.after) == len(self.groups)
            if known[0]:
                return []
            self.seen, self.after = [part.clone() for part in seen], {}
            states: list[BranchState] = embed(images, views)
            return states

        def run_group_once(states: list[BranchState], group: int) -> list[BranchState]:
            if known[0]:
                return _copied(self.after[group]) if group in self.groups else []
            states = run_group(states, group)
            if group in self.groups:
                self.after[group] = _copied(states)
            return states

        backbone.embed, backbone.run_group = embed_once, run_group_once
        try:
            yield
        finally:
            del backbone.embed, backbone.run_group  # the class's own show again


@contextmanager
def sharing(predictors: Sequence[Predictor]) -> Iterator[None]:
    """Inside the block, predictors that run on the same batch one after the other run its backbone once.

    Raises ValueError where `check_shared` does, or one of them is compiled.
    """
    models = [predictor.model for predictor in predictors]
    check_shared(models)
    if any(predictor.inference.compiled for predictor in predictors):
        raise ValueError("compiled models cannot share a backbone; leave out compile")
    last = models[0].config.backbone.groups - 1
    shared = SharedStates({last}.union(*(map(int, model.backbone.earlier_merges) for model in models)))
    with ExitStack() as stack:
        for predictor in predictors:
            stack.enter_context(shared.within(predictor.inference.get().backbone))
        yield


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _copied(states: list[BranchState]) -> list[BranchState]:
    return [
        state._replace(tokens=state.tokens.clone(), prefix=None if state.prefix is None else state.prefix.clone())
        for state in states
    ]
