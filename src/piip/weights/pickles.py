"""Other people's `.pth` files, read without trust: tensors come out, code never runs.

Files are mapped into memory, not read: a tensor's bytes are fetched from the disk when they are used.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from piip.weights.files import WeightsError

STATE_KEYS = ("state_dict", "model", "module")
"""where a state dict lies in a checkpoint: of mmdetection and mmsegmentation, of classification, of DeepSpeed"""
PARALLEL_PREFIX = "module."


def read_state_dict(path: str | Path, arguments: bool = False) -> dict[str, Tensor]:
    """The state dict in a checkpoint, on the CPU and mapped from the file where its format allows it.

    Args:
        path: a `.pth` or `.pt` file: {"state_dict": ...}, {"model": ...}, DeepSpeed's {"module": ...}, or the state
            dict itself.
        arguments: allow the `argparse.Namespace` that classification checkpoints hold beside it. Only plain values in
            it pass, nothing of it is run or returned.

    Raises:
        WeightsError: no such file, cut off or damaged, anything in it but tensors and plain values, no state dict.
    """
    path = Path(path)
    loaded = load_untrusted(path, arguments)
    for key in STATE_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(name, str) for name in loaded):
        raise WeightsError(f"{path}: holds no state dict; looked for {', '.join(STATE_KEYS)} and for tensors by name")
    others = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{path}: not a state dict: no tensors under {', '.join(map(str, others[:8]))}")
    if all(name.startswith(PARALLEL_PREFIX) for name in loaded):
        loaded = {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in loaded.items()}
    return dict(loaded)


def load_untrusted(path: Path, arguments: bool = False) -> Any:
    """What a PyTorch file holds, with `weights_only=True`; see `read_state_dict`."""
    if path.is_dir():
        raise WeightsError(f"{path}: a folder; give the checkpoint file in it")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    allowed: list[Any] = [argparse.Namespace] if arguments else []
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # about the pickle's protocol
            return torch.load(path, map_location="cpu", mmap=is_mapped(path), weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: {_refusal(str(error))}") from None
    except MemoryError:
        raise WeightsError(f"{path}: does not fit into memory") from None
    except Exception as error:  # whatever a damaged file makes the reader trip over
        reason = str(error).split("\n")[0].split(". ")[0][:200]
        detail = f" ({reason})" if " " in reason else ""  # some are bare numbers
        raise WeightsError(f"{path}: cut off, damaged, or not a PyTorch checkpoint{detail}") from None


def is_mapped(path: Path) -> bool:
    """Whether the file has today's format, whose tensors can be mapped; older ones are read into memory."""
    with path.open("rb") as file:
        return file.read(2) == b"PK" or zipfile.is_zipfile(path)


def _refusal(reason: str) -> str:
    name = re.search(r"(?:GLOBAL|class|instance of)\s+([\w.]+)", reason)
    if name is None:
        return "damaged, or not a PyTorch checkpoint"
    return (
        f"refused: it holds {name[1]}, which is neither a tensor nor a plain value. Such a file can run any code when "
        "it is opened; nothing of it was run. Only open it with other software if you trust whoever made it"
    )
