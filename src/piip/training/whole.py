"""A sharded training's result as others know it: an ordinary file of weights.

All processes take part, as each has a part of every tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from piip import config, processes
from piip.training.shard import whole
from piip.weights.files import save_streamed
from piip.weights.streams import order


def write_whole(described: config.Model, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write the file that `save_model` writes of such a model; no process holds more than one whole tensor."""
    gathered = ((name, whole(tensors[name]).cpu()) for name in order(tensors))
    if processes.rank() == 0:
        save_streamed(described, path, tensors, gathered)
    else:
        for _ in gathered:
            pass
