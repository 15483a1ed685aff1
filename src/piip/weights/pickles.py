"""Other people's checkpoints, read without trust: tensors and plain data come out, code never runs.

Tensors of today's file format are mapped, not read: their bytes are fetched from the disk when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from piip.weights.errors import WeightsError
from piip.weights.untrusted.errors import Damaged, Refused
from piip.weights.untrusted.layouts import is_archive, read_file

__all__ = ["Checkpoint", "is_mapped", "load_untrusted", "read_checkpoint", "read_state_dict"]

STATE_KEYS = ("state_dict", "model", "module")
"""where a state dict lies in a checkpoint: of mmdetection and mmsegmentation, of classification, of DeepSpeed"""
PARALLEL_PREFIX = "module."
AVERAGE_PREFIX = "ema_"
"""of the buffers in which mmcv's EMA hook keeps a second set of weights, dots in their names as underscores"""
AVERAGE_KEY = "model_ema"
"""where classification checkpoints hold the running average"""
DEEPSPEED_FILE = "mp_rank_00_model_states.pt"
DEEPSPEED_LATEST = "latest"
"""a file that names the newest of DeepSpeed's folders beside it"""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of a model."""

    path: Path
    state: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    """a second set of weights, under the same names: an EMA hook's buffers, or the running average of a training"""
    classes: tuple[str, ...] | None
    config: str | None
    """the text of the config it was trained with, as mmcv and mmengine store it"""


def read_checkpoint(path: str | Path) -> Checkpoint:
    """A checkpoint of mmdetection 2 or 3, mmsegmentation, classification or DeepSpeed.

    Args:
        path: a `.pth` or `.pt` file: {"state_dict": ...}, {"model": ...}, DeepSpeed's {"module": ...}, or the state
            dict itself; or a folder that DeepSpeed wrote.

    Raises:
        WeightsError: no such file, cut off or damaged, anything in it that would run, no state dict.
    """
    path = find_checkpoint(path)
    loaded = load_untrusted(path)
    holder = loaded if isinstance(loaded, Mapping) else {}
    key = next((key for key in STATE_KEYS if isinstance(holder.get(key), Mapping)), None)
    state = _without_parallel(_state_dict(loaded if key is None else holder[key], path))
    average = {} if key is None else holder.get(AVERAGE_KEY)
    if isinstance(average, Mapping) and average:
        average = _without_parallel(_state_dict(average, path))
    else:
        state, average = _split_average(state)
    meta = holder.get("meta") if key is not None else None
    meta = meta if isinstance(meta, Mapping) else {}
    return Checkpoint(path, state, average, _classes(meta), _config(meta))


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights in a checkpoint, on the CPU, without an EMA hook's second set; see `read_checkpoint`."""
    return dict(read_checkpoint(path).state)


def load_untrusted(path: Path) -> Any:
    """All that a PyTorch file holds, as plain data; see `weights.untrusted`. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        return read_file(path)
    except Refused as error:
        raise WeightsError(
            f"{path}: refused: it holds {str(error)[:200]}, which is neither a tensor nor plain data. Such a file can "
            "run any code when it is opened; nothing of it was run. Only open it with other software if you trust "
            "whoever made it"
        ) from None
    except (MemoryError, RecursionError):
        raise WeightsError(f"{path}: does not fit into memory") from None
    except Damaged as error:
        raise WeightsError(f"{path}: cut off, damaged, or not a PyTorch checkpoint ({str(error)[:200]})") from None


def is_mapped(path: Path) -> bool:
    """Whether the file has today's format, whose tensors can be mapped; older ones are read into memory."""
    return is_archive(path)


def find_checkpoint(path: str | Path) -> Path:
    """The file that `path` means: itself, or the weights in a folder that DeepSpeed wrote.

    Raises WeightsError where there is none, or where each of several files holds a part of the weights.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    folders = [path]
    if (latest := path / DEEPSPEED_LATEST).is_file():
        folders.append(path / latest.read_text(encoding="utf-8", errors="replace").strip())
    elif len(steps := sorted(path.glob("global_step*/"))) == 1:
        folders += steps
    elif steps:
        names = ", ".join(step.name for step in steps[:8])
        raise WeightsError(f"{path}: a folder; give one of the checkpoints in it: {names}")
    for folder in folders:
        parts = sorted(folder.glob("mp_rank_*_model_states.pt"))
        if len(parts) > 1 or list(folder.glob("zero_pp_rank_*_model_states.pt")):
            raise WeightsError(f"{folder}: the weights are in parts (model parallel, or ZeRO stage 3); join them with "
                               "the zero_to_fp32.py that DeepSpeed put there, and convert what it writes")  # fmt: skip
        if parts:
            return parts[0]
    raise WeightsError(f"{path}: a folder; give the checkpoint file in it, or a folder of DeepSpeed's with "
                       f"{DEEPSPEED_FILE} in it")  # fmt: skip


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(name, str) for name in loaded):
        raise WeightsError(f"{path}: holds no state dict; looked for {', '.join(STATE_KEYS)} and for tensors by name")
    others = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{path}: not a state dict: no tensors under {', '.join(map(str, others[:8]))}")
    return dict(loaded)


def _without_parallel(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith(PARALLEL_PREFIX) for name in state):
        return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in state.items()}
    return state


def _split_average(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights, and those that an EMA hook keeps as buffers, both under the weights' names."""
    names = {AVERAGE_PREFIX + name.replace(".", "_"): name for name in state if not name.startswith(AVERAGE_PREFIX)}
    average = {names[name]: tensor for name, tensor in state.items() if name in names}
    return {name: tensor for name, tensor in state.items() if name not in names}, average


def _classes(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the classes, as mmdetection 2 (`CLASSES`) and 3 (`dataset_meta`) store them."""
    described = meta.get("dataset_meta")
    for holder in (meta, described if isinstance(described, Mapping) else {}):
        found = holder.get("CLASSES") or holder.get("classes")
        if isinstance(found, str):  # a tuple of one that was written without its comma
            return (found,)
        if isinstance(found, tuple | list) and found and all(isinstance(name, str) for name in found):
            return tuple(found)
    return None


def _config(meta: Mapping[str, Any]) -> str | None:
    found = meta.get("config") or meta.get("cfg")
    return found if isinstance(found, str) and found.strip() else None
