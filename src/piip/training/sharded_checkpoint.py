"""Checkpoints of a sharded training: each process writes its own parts, nobody gathers anything.

    weights/last.ckpt                  settings, position, single numbers; which folder of shards belongs to it
    weights/last.shards/NAME/*         the parts, by torch's distributed checkpoint: safetensors files, nothing pickled

The folder is complete before `last.ckpt` speaks of it, and stays as long as it or the checkpoint before it does. Any
number of processes can go on from it, one without shards too.
"""

from __future__ import annotations

import shutil
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from piip import processes
from piip.files import disk_is_full
from piip.training.shard import ShardedAverage
from piip.training.shard_files import checksum
from piip.weights.errors import WeightsError
from piip.weights.streams import in_shards

AT_ONCE = 256 << 20
"""bytes of the parts that a process puts into one file, which is built in memory"""
OPTIMIZER = "optimizer."
STEP = f"{OPTIMIZER}step."


def named_tensors(
    model: nn.Module, average: AveragedModel | ShardedAverage | None, optimizer: Optimizer
) -> tuple[dict[str, Tensor], int]:
    """All that a training is about, by one name each: `model.*`, `average.*`, `optimizer.KIND.*`.

    And how many updates the average has seen. What is frozen is not averaged.
    """
    parameters = dict(model.named_parameters())
    tensors = {f"model.{name}": tensor.detach() for name, tensor in model.state_dict().items()}
    averaged, updates = average_of(average)
    for name, tensor in averaged.items():
        if name not in parameters or parameters[name].requires_grad:
            tensors[f"average.{name}"] = tensor.detach()
    for name, parameter in parameters.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER}{kind}.{name}"] = value
    return tensors, updates


def average_of(average: AveragedModel | ShardedAverage | None) -> tuple[dict[str, Tensor], int]:
    """The tensors of a running average by the model's names, and how many updates it has seen."""
    if average is None:
        return {}, 0
    if isinstance(average, ShardedAverage):
        return average.tensors, average.updates
    return average.module.state_dict(), int(average.n_averaged)


def begin_states(model: nn.Module, optimizer: Optimizer, names: set[str]) -> None:
    """Give the optimizer empty states for the parameters of these names, as its first step would."""
    for name, parameter in model.named_parameters():
        if name in names:
            empty = {kind: torch.zeros_like(parameter).detach() for kind in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(0.0), **empty}


def write_shards(tensors: Mapping[str, Tensor], root: Path) -> dict[str, Any]:
    """Write the sharded ones of `tensors` to a new folder in `root`; returns what the checkpoint must know of it.

    All processes take part. OSError if one of them could not write; then the folder is gone again.
    """
    sharded = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    name = processes.from_main(uuid.uuid4().hex)
    folder = root / name
    limit = AT_ONCE * processes.count()
    files = {key: index for index, keys in enumerate(in_shards(sharded, sharded, limit), 1) for key in keys}
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    try:
        dcp.save(dict(sharded), storage_writer=writer)
    except CheckpointException as error:
        if processes.rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        reason = "the disk is full" if disk_is_full(error) else str(next(iter(error.failures.values()))[0])
        raise OSError(f"{folder}: the checkpoint could not be written ({reason}); the one before it is still "
                      "there, if there was one") from error  # fmt: skip
    mine = {file.name: checksum(file) for file in folder.glob(f"shard-{processes.rank() + 1:05d}-*")}
    sums = {file: value for part in processes.gathered(mine) for file, value in part.items()}
    beside = {key: tensor.detach().cpu() for key, tensor in tensors.items() if key not in sharded}
    return {"folder": name, "sums": sums, "beside": beside}


def restore_shards(
    model: nn.Module,
    average: AveragedModel | ShardedAverage | None,
    optimizer: Optimizer,
    shards: Mapping[str, Any],
    root: Path,
) -> None:
    """Put a training, sharded or not, into the state that `write_shards` wrote. WeightsError where it does not fit."""
    begin_states(model, optimizer, {name.removeprefix(STEP) for name in shards["beside"] if name.startswith(STEP)})
    tensors, _ = named_tensors(model, average, optimizer)
    read_shards(tensors, shards, root)
    if isinstance(average, ShardedAverage):
        average.updates = shards["updates"]
    elif average is not None:
        average.n_averaged.fill_(shards["updates"])


def read_shards(tensors: Mapping[str, Tensor], shards: Mapping[str, Any], root: Path) -> None:
    """Fill `tensors`, sharded or whole, from what `write_shards` wrote; every process for itself.

    WeightsError where names or shapes are others.
    """
    folder, beside = root / shards["folder"], shards["beside"]
    rest = dict(tensors)
    with torch.no_grad():
        for name, tensor in beside.items():
            if name not in rest or rest[name].shape != tensor.shape:
                raise WeightsError(f"{folder}: does not fit the model: {name}")
            rest.pop(name).copy_(tensor)
    reader = HuggingFaceStorageReader(str(folder))
    if wrong := sorted(rest.keys() ^ reader.read_metadata().state_dict_metadata.keys()):
        raise WeightsError(f"{folder}: does not fit the model: {', '.join(wrong[:5])}")
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")  # that is meant
    try:
        dcp.load(dict(rest), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except (CheckpointException, ValueError) as error:
        raise WeightsError(f"{folder}: does not fit the model: {error}") from error
