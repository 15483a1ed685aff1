"""A sharded training's result as others know it: a model in one piece, or an ordinary file of weights.

All processes take part, as each has a part of every tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from piip import config, processes
from piip.backbone.branch import restore_buffers
from piip.devices import float32_by_default
from piip.model import PIIPModel
from piip.training.shard import whole
from piip.weights.files import save_streamed, without_downloads
from piip.weights.streams import order


@float32_by_default()
def whole_model(described: config.Model, tensors: Mapping[str, Tensor], device: torch.device) -> PIIPModel:
    """The model with these weights in one piece, on every process; nothing of it is shared with the training."""
    with torch.device("meta"):
        model = PIIPModel(without_downloads(described))
    model.config = described
    gathered = {name: whole(tensor).detach().clone() for name, tensor in tensors.items()}
    model.load_state_dict(gathered, assign=True)
    restore_buffers(model)
    return model.to(device).eval()


def write_whole(described: config.Model, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write the file that `save_model` writes of such a model; no process holds more than one whole tensor."""
    gathered = ((name, whole(tensors[name]).cpu()) for name in order(tensors))
    if processes.rank() == 0:
        save_streamed(described, path, tensors, gathered)
    else:
        for _ in gathered:
            pass
