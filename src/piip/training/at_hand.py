"""A training's weights, ready to be evaluated: those of its last step, or its best.

Of a sharded training they are evaluated where they are, each process with its part of the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from piip.model import PIIPModel
from piip.training.run import Run
from piip.weights.files import load_model


@contextmanager
def result_at_hand(run: Run) -> Iterator[PIIPModel]:
    """The result model in evaluation mode. All processes call, and evaluate the same inside, if they are sharded."""
    if not run.settings.shard:
        yield run.result_model.eval()
        return
    from piip.training.on_shards import on_shards

    with on_shards(run.model, run.losses, cast(Any, run.average)) as model:
        yield cast(PIIPModel, model)


@contextmanager
def best_at_hand(weights: Path, device: torch.device, sharded: nn.Module | None) -> Iterator[PIIPModel]:
    """The model that the file `weights` holds, on `device`; of a sharded training on its shards.

    `sharded`: what trained, whose weights become the file's. All processes call, as of `result_at_hand`.
    """
    if sharded is None:
        yield load_model(weights).to(device)
        return
    from piip.training.on_shards import on_shards
    from piip.training.shard import fill_shards

    model = cast(PIIPModel, sharded.model)
    fill_shards(model, weights)
    with on_shards(model, sharded, None) as ready:
        yield cast(PIIPModel, ready)
