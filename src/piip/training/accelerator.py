"""Device, precision and processes of a training, by accelerate, and nothing else that accelerate's environment says."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from piip import devices, processes
from piip.training.settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator

NEEDED = ("accelerate", "matplotlib", "scipy", "tensorboard")
DEVICE = "ACCELERATE_TORCH_DEVICE"
STARTED_BY_ACCELERATE = "ACCELERATE_MIXED_PRECISION"
"""which `accelerate launch` always sets"""
HARMLESS = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "use the setting grad_accumulation"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "a training is not compiled"),
    "ACCELERATE_USE_DEEPSPEED": ("false", "use piip train --shard, which does what its ZeRO stage 3 does"),
    "ACCELERATE_USE_FSDP": ("false", "use piip train --shard"),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "use several processes without it"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("false", "use several processes without it"),
}
"""variables that `accelerate launch` sets and that would change a run without a word: the value that changes nothing,
and what to do instead of any other"""
OFF = frozenset({"", "0", "false", "no", "none"})


def require_libraries() -> None:
    """ImportError without the extra."""
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        raise ImportError(f'training needs {", ".join(missing)}: pip install "piip[train]"')


def build_accelerator(settings: Settings) -> Accelerator:
    """Device, precision and processes. ValueError where the machine lacks them, ImportError without the extra."""
    require_libraries()
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    check_environment(settings)
    check_launcher()
    # accelerate keeps the device and precision of the first run in a Python process for all later ones.
    AcceleratorState._reset_state(reset_partial_state=True)
    precision = "no" if settings.precision == "fp32" else settings.precision
    with _device_of(settings.device) as cpu:
        if processes.started_again():
            processes.join(cpu, settings.peer_minutes)
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=_of_several(settings))
    wanted, got = settings.device.partition(":")[0], accelerator.device.type
    if wanted not in ("auto", got):
        raise ValueError(f'device "{settings.device}" is not available here; use "auto" or "{got}"')
    if settings.precision == "fp16" and accelerator.scaler is None:
        raise ValueError('precision "fp16" needs a GPU; use precision "bf16" or "fp32"')
    check_shardable(settings, accelerator.num_processes)
    return accelerator


def check_shardable(settings: Settings, several: int) -> None:
    """ValueError where there is nothing to shard over, or settings that shards do not go with."""
    if not settings.shard:
        return
    if several == 1:
        raise ValueError("shard: there is one process, which would hold everything; give --processes N, or --no-shard")
    if settings.precision == "fp16":
        raise ValueError('shard with precision "fp16": its scaler knows nothing of shards; use precision "bf16"')
    if settings.lora is not None:
        raise ValueError("shard with lora is not supported: what adapters train fits without shards; use --no-shard, "
                         "or freeze parts of the model instead")  # fmt: skip


def check_environment(settings: Settings) -> None:
    """ValueError for a variable of accelerate's that would make another run than the settings say."""
    for name, (harmless, instead) in HARMLESS.items():
        value = os.environ.get(name, harmless)
        if value.lower() != harmless and not (harmless in OFF and value.lower() in OFF):
            raise ValueError(f"{name}={value} in the environment would change this training; unset it and {instead}")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in OFF and precision != settings.precision:
        raise ValueError(
            f"ACCELERATE_MIXED_PRECISION={precision} in the environment, but the training's precision is "
            f"{settings.precision}; unset it, or use the setting precision"
        )
    cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower()
    if cpu not in OFF and settings.device != "cpu" and torch.cuda.is_available():
        raise ValueError(
            f'ACCELERATE_USE_CPU={cpu} in the environment, but the device is "{settings.device}"; unset it, or use the '
            'device "cpu"'
        )


def check_launcher() -> None:
    """ValueError where `accelerate launch` was told of several processes and started one, as it does on a CPU."""
    if STARTED_BY_ACCELERATE not in os.environ or "WORLD_SIZE" in os.environ:
        return
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return
    words = [part for word in command for part in word.split("=", 1)]
    asked = [after for word, after in pairwise(words) if word.replace("_", "-") == "--num-processes"]
    if asked and asked[-1] not in ("0", "1"):
        raise ValueError(
            f"accelerate launch was told of {asked[-1]} processes but has started one, as it does on a CPU; use "
            f"piip train --processes {asked[-1]}"
        )


def _of_several(settings: Settings) -> list[Any]:
    """How several processes work together: gradients live in the buckets they are sent in, so that there is no copy."""
    # Of 1 x C x 3 x 3 kernels, whose strides have two spellings.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    from accelerate import DistributedDataParallelKwargs, InitProcessGroupKwargs

    return [
        DistributedDataParallelKwargs(gradient_as_bucket_view=True),
        InitProcessGroupKwargs(timeout=timedelta(minutes=settings.peer_minutes)),
    ]


@contextmanager
def _device_of(name: str) -> Iterator[bool]:
    """While accelerate looks for its device; yields whether it is to be the CPU.

    A process alone gets the device of this name by the package's own rule. Of several, each gets a GPU of its own,
    which is accelerate's business. ValueError for a device that is not here.
    """
    before = os.environ.pop(DEVICE, None)
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            if ":" in name:
                raise ValueError(
                    f'device "{name}" for several processes: each takes a GPU of its own; use "cuda", and choose '
                    "among the GPUs with CUDA_VISIBLE_DEVICES"
                )
            yield name == "cpu"
        else:
            device = devices.find(name)
            if device.type == "cuda" and device.index is not None:
                torch.cuda.set_device(device)
            os.environ[DEVICE] = str(device)
            yield device.type == "cpu"
    finally:
        os.environ.pop(DEVICE, None)
        if before is not None:
            os.environ[DEVICE] = before
