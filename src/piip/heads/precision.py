"""Heads are trained in float32, whatever precision the backbone has (reference, "Recipes"), and can predict so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from piip.heads.head import Head
from piip.structures import Batch, BranchState, Prediction


def loss_in_float32(head: Head, features: Sequence[Tensor] | Sequence[BranchState], batch: Batch) -> dict[str, Tensor]:
    """`head.loss`: under autocast without it and on float32 features, elsewhere in the model's own precision."""
    device = batch.images.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):  # which torch refuses to answer for meta
        return head.loss(list(features), batch)
    with torch.autocast(device, enabled=False):
        return head.loss([_in_float32(feature) for feature in features], batch)


def predict_in_float32(
    head: Head,
    features_of: Callable[[Tensor], Sequence[Tensor] | Sequence[BranchState]],
    batch: Batch,
    autocast: AbstractContextManager[Any],
) -> list[Prediction]:
    """`head.predict` on float32 features, of which only the computation runs under `autocast`."""

    def features(images: Tensor) -> list[Any]:
        with autocast:
            return [_in_float32(feature) for feature in features_of(images)]

    return head.predict(features, batch) if len(batch.images) else []


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast on `device`; nothing on the meta device, where there is none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _in_float32(feature: Tensor | BranchState) -> Tensor | BranchState:
    """A map or a branch's state in at least single precision."""
    if isinstance(feature, BranchState):
        prefix = None if feature.prefix is None else _at_least_float32(feature.prefix)
        return feature._replace(tokens=_at_least_float32(feature.tokens), prefix=prefix)
    return _at_least_float32(feature)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
