"""What the weights of a training take on each of several GPUs, counted on the meta device; activations come on top."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from piip import config
from piip.backbone.called_alone import called_alone
from piip.model import PIIPModel
from piip.weights.files import without_downloads
from piip.weights.names import config_of
from piip.zoo.encoders import list_encoders

BYTES = 4
"""float32, which weights are trained in whatever the precision"""
MOMENTS = 2
"""AdamW's, of every trained weight"""


def training_memory(name: str | Path, processes: int) -> list[dict[str, float | bool]]:
    """Billions of bytes on each of so many processes: two rows, without shards (DDP) and with (FSDP2).

    Each has `weights`, `gradients`, `optimizer`, `average` (of the weights, by `ema`), their sum as `held`, and as
    `gathered` what comes and goes within a step, at most. ValueError for an encoder, which is not trained here.
    """
    if name in list_encoders():
        raise ValueError(f"{name} is an encoder, which is not trained here; give a model")
    return memory_of(config_of(name), processes)


def memory_of(described: config.Model, processes: int) -> list[dict[str, float | bool]]:
    """The same for any config."""
    if processes < 1:
        raise ValueError(f"{processes} processes: give at least 1")
    with torch.device("meta"):
        model = PIIPModel(without_downloads(described))
    parts = [list(part.parameters()) for part in called_alone(model.backbone)]
    apart = {parameter for part in parts for parameter in part}
    rest = [parameter for parameter in model.parameters() if parameter not in apart]
    # The rest is whole, with gradients, from the forward to the backward pass; of the blocks one computes while the
    # weights of the next arrive.
    gathered = 2 * _elements(rest, 1) + 3 * max((_elements(part, 1) for part in parts), default=0)
    return [
        _row(model, 1, 0) | {"sharded": False},
        _row(model, processes, gathered if processes > 1 else 0) | {"sharded": True},
    ]


def _row(model: nn.Module, shares: int, gathered: int) -> dict[str, float | bool]:
    trained = _elements((p for p in model.parameters() if p.requires_grad), shares)
    numbers = {
        "weights": _elements(model.parameters(), shares),
        "gradients": trained,
        "optimizer": MOMENTS * trained,
        "average": trained,
    }
    numbers |= {"held": sum(numbers.values()), "gathered": gathered}
    return {key: round(number * BYTES / 1e9, 3) for key, number in numbers.items()}


def _elements(parameters: Iterable[nn.Parameter], shares: int) -> int:
    """On the process that has most: rows are dealt out, and single numbers are everywhere."""
    return sum(-(-len(parameter) // shares) * parameter[0].numel() if parameter.ndim else 1 for parameter in parameters)
