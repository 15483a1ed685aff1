"""The folded, perhaps compiled copy of a model that may still change."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, Literal

import torch

from piip.inference import Mode, compiling, fuse
from piip.inference.copies import Version, version, with_shared_tensors
from piip.inference.fingerprint import Fingerprint, fingerprint
from piip.inference.gpu.graphs import set_graphs
from piip.inference.half import with_half_backbone
from piip.model import PIIPModel
from piip.structures import HALF

Upcast = Literal["nothing", "head", "all"]


class InferenceCopy:
    """Made when first asked for, and anew after the model's weights or config have changed.

    Args:
        model: what is copied; tensors that folding leaves alone are shared with it
        fold: see `piip.inference`. Weights stored in half precision are never folded: they would be rounded twice.
        compiled: see `piip.inference.compiling`
        upcast: of weights stored in half precision, those that the copy has in float32: none of them, the head's, or
            all. All take twice the file's size in memory beside the model, and are folded as others are.
        graphs: run the copy's backbone as CUDA graphs, see `piip.inference.gpu.graphs`; not if compiled
        half: what the backbone of a folded copy of weights in float32 is stored in, see `piip.inference.half`; None:
            as they are
    """

    def __init__(
        self,
        model: PIIPModel,
        fold: bool = True,
        compiled: bool = False,
        upcast: Upcast = "nothing",
        graphs: bool = True,
        half: torch.dtype | None = None,
    ) -> None:
        self.model, self.fold, self.compiled, self.upcast = model, fold, compiled, upcast
        self.graphs, self.half = graphs, half
        self._copy: PIIPModel | None = None
        self._version: Version = ()
        self._weights: Fingerprint = ()
        self._configs: tuple[Any, ...] = ()

    def get(self) -> PIIPModel:
        """The model to run; the original itself where nothing is to be done to it."""
        upcast: Upcast = "nothing" if stored_in_half(self.model) is None else self.upcast
        fold = self.fold and _can_be_folded(self.model, upcast)
        if not fold and not self.compiled and upcast == "nothing":
            return self.model
        configs, version_now = (self.model.config, self.model.head.config), version(self.model)
        same = version_now == self._version and all(a is b for a, b in zip(configs, self._configs, strict=False))
        # The numbers themselves are looked at, too: a copy shares some tensors with the model and has its own of
        # others, so that after a change that it does not see it would mix two sets of weights.
        weights = fingerprint(chain(self.model.parameters(), self.model.buffers()))
        if self._copy is None or not same or weights != self._weights:
            model = upcasted(self.model, upcast)
            self._copy = self._fold(model) if fold else with_shared_tensors(model).eval()
            if self.compiled:
                compiling.compile_backbone(self._copy)
            elif self.graphs:
                set_graphs(self._copy, on=True)
            self._version, self._weights, self._configs = version_now, weights, configs
        return self._copy

    def _fold(self, model: PIIPModel) -> PIIPModel:
        mode: Mode = "compile" if self.compiled else "predict"
        if self.half is None:
            return fuse(model, share=True, mode=mode)
        return with_half_backbone(fuse(model, share=True, winograd="nowhere", mode=mode), self.half, mode)


class Newest:
    """An inference copy through a stream of batches.

    Whether its weights are still the model's is looked at in full when the stream begins, which takes a pass over all
    of them; before each batch only what PyTorch notes of changes is.
    """

    def __init__(self, inference: InferenceCopy, model: PIIPModel) -> None:
        self.inference, self.model = inference, model
        self._copy: PIIPModel | None = None
        self._version: Version = ()

    def get(self) -> PIIPModel:
        """The model to run."""
        now = version(self.model)
        if self._copy is None or now != self._version:
            self._copy, self._version = self.inference.get(), now
        return self._copy


def stored_in_half(model: PIIPModel) -> torch.dtype | None:
    """The half precision that a model's weights are stored in; None for one in float32."""
    found = {parameter.dtype for parameter in model.parameters()} & HALF
    return found.pop() if found else None


def upcasted(model: PIIPModel, upcast: Upcast) -> PIIPModel:
    """A model with the head, or all of it, in float32; what is not changed is shared with `model`."""
    if upcast == "nothing":
        return model
    if upcast == "all":
        return copy.deepcopy(model).float()
    copied = with_shared_tensors(model)
    copied.head = copy.deepcopy(model.head).float()
    return copied


def _can_be_folded(model: PIIPModel, upcast: Upcast) -> bool:
    """Not twice, not in half precision, and not what only behaves like a model."""
    in_float32 = upcast == "all" or stored_in_half(model) is None
    return isinstance(model, PIIPModel) and not model.folded and in_float32
