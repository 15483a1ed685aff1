"""Several processes on this machine: the same command, started once for each by torch's own launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from piip.console import Terminal, say
from piip.processes import launched

FOLDER = "PIIP_LAUNCH_FOLDER"
"""environment variable of the processes: where they say who said what, see `training.peers`"""
SAID, LOST, HINT = "said", "lost", "hint"
"""files there: somebody said what is wrong; the words of one that only lost the others; what to do if one is lost"""
GRACE_SECONDS = 600
"""what a process has after a signal to write its checkpoint, or after another's failure to end"""


def run(arguments: Sequence[str], processes: int, environment: Mapping[str, str] | None = None) -> int:
    """`python ARGUMENTS` so many times, as the processes of one training; returns an exit code once all have ended.

    The code is that of the process which failed first, or 128 + n where one was killed by signal n, or this process
    was asked to stop by it: then the others are asked too, and have `GRACE_SECONDS` for a checkpoint. Whatever is
    wrong is said once.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # torch tells of each failure in 20 lines
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.update({"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_SECONDS)} | dict(environment or {}))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with tempfile.TemporaryDirectory(prefix="piip-processes-") as folder:
        os.environ[FOLDER] = folder
        job = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
        )
        try:
            elastic_launch(job, sys.executable)(*arguments)
        except ChildFailedError as failed:
            return _told({rank: failure.exitcode for rank, failure in failed.failures.items()}, Path(folder))
        except SignalException as stopped:
            return 128 + int(stopped.sigval)
    return 0


def _told(codes: Mapping[int, int], folder: Path) -> int:
    """Say what none of the processes that ended with these `codes` has said; returns the exit code of it all.

    Negative ones are signals; SIGTERM is what the launcher sends to the others after a failure.
    """
    killed = {rank: -code for rank, code in codes.items() if code < 0 and -code != signal.SIGTERM}
    own = [code for _, code in sorted(codes.items()) if code > 0]
    lost = (folder / LOST).read_text(encoding="utf-8") if (folder / LOST).exists() else None
    if own and lost is not None and "silent" in lost:
        killed = {}  # a process that was stopped: the launcher itself ended it
    text = lost
    if killed:
        rank, number = next(iter(killed.items()))
        memory = ", as the system does when memory runs out" if number == signal.SIGKILL else ""
        hint = folder / HINT
        then = f". {hint.read_text(encoding='utf-8')}" if hint.exists() else ""
        text = f"process {rank} was killed by signal {number} ({signal.Signals(number).name}){memory}{then}"
    if text is not None and not (folder / SAID).exists():
        say(Terminal(stderr=True), f"Error: {text}", "bold red")
    if killed:
        return 128 + next(iter(killed.values()))
    return own[0] if own else 128 + signal.SIGTERM


def wanted(processes: int | None, devices: str | None, device: str | None) -> tuple[int, dict[str, str]] | None:
    """How many processes are asked for, and their environment; None where this process is one of them.

    Also None for one process without a choice of devices. ValueError where this machine cannot run so many.
    """
    if processes is not None and (type(processes) is not int or processes < 1):
        raise ValueError(f"{processes!r} processes: give a whole number, at least 1")
    if os.environ.get("RANK") is not None:
        if processes not in (None, launched()):
            raise ValueError(
                f"{processes} processes wanted, but the launcher started {launched()}: leave out one of the two"
            )
        return None
    chosen = [] if devices is None else [part.strip() for part in devices.split(",")]
    if chosen:
        return _on(chosen, processes, device)
    if processes in (None, 1):
        return None
    assert processes is not None
    gpus = torch.cuda.device_count()
    if device != "cpu" and 0 < gpus < processes:
        raise ValueError(
            f"{processes} processes, but {gpus} GPUs, one for each: give {gpus} processes, or the device cpu"
        )
    return processes, {}


def _on(chosen: Sequence[str], processes: int | None, device: str | None) -> tuple[int, dict[str, str]]:
    """A process for each GPU of this list."""
    usable = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    there = [name for name in usable if name]
    if device not in (None, "cuda", "auto"):
        raise ValueError(f"--devices {','.join(chosen)} are GPUs, but --device is {device}: give one of the two")
    if len(set(chosen)) < len(chosen) or not all(one.isdecimal() and int(one) < len(there) for one in chosen):
        found = f"0 to {len(there) - 1}" if there else "none; give --processes N for several processes on a CPU"
        raise ValueError(
            f"--devices {','.join(chosen)}: give numbers of different GPUs, such as 0,1; here there are {found}"
        )
    if processes not in (None, len(chosen)):
        raise ValueError(f"{processes} processes for {len(chosen)} devices: each process takes one")
    return len(chosen), {"CUDA_VISIBLE_DEVICES": ",".join(there[int(one)] for one in chosen)}
