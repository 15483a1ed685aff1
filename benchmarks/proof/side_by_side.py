"""Several of `run.py`'s runs at once, in a given order, until the time is over: small models keep a large GPU waiting.

    python benchmarks/proof/side_by_side.py boards:deeppcb cells:bccd streets:camvid \\
        --branch-weights vit_small_patch14_dinov2.safetensors --at-once 11 --minutes 10 --output runs/proof

Each argument is an experiment and its data; seeds are the outer loop, experiments the next. Runs that ended are not
repeated, those that were begun go on. When the time is over those at work are stopped as Ctrl-C stops them, with a
checkpoint; so the same command goes on later. Each run's log is in `<output>/logs`. On one GPU, NVIDIA's MPS
(`nvidia-cuda-mps-control -d`) lets processes share it instead of taking turns.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from run import MODELS, SETTINGS, read_rows

BEGIN_AS_A_FILE = ("streets", "cells")
TO_STOP = 30
"""seconds that a run has to save itself"""


class Job(NamedTuple):
    """One training."""

    experiment: str
    data: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        """As `run.py` names its folder."""
        return f"{self.experiment}-{self.model}-{self.seed}"


def main() -> None:
    given = parse()
    pairs = [text.split(":", 1) for text in given.experiments]
    every = [Job(name, data, model, seed) for seed in range(given.seeds) for name, data in pairs for model in MODELS]
    waiting = [job for job in every if not ended(job, given.output)]
    print(f"{len(every)} runs, {len(every) - len(waiting)} of them ended", flush=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    began = time.monotonic()
    (given.output / "logs").mkdir(parents=True, exist_ok=True)
    while (waiting or running) and time.monotonic() < began + 60 * given.minutes:
        while waiting and len(running) < given.at_once:
            job = waiting.pop(0)
            running[job.name] = start(job, given)
            print(f"{time.monotonic() - began:6.0f} s  begins {job.name}", flush=True)
        time.sleep(0.5)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            print(f"{time.monotonic() - began:6.0f} s  {name}: exit code {running.pop(name).returncode}", flush=True)
    stop(running)
    print(f"left: {', '.join([*running, *(job.name for job in waiting)]) or 'nothing'}")


def ended(job: Job, output: Path) -> bool:
    """Whether there is a line about it."""
    rows = read_rows(output / f"{job.experiment}.jsonl")
    return (job.model, job.seed) in {(row["model"], row["seed"]) for row in rows}


def start(job: Job, given: argparse.Namespace) -> subprocess.Popen[bytes]:
    """`run.py` for one model and seed, in a process group of its own."""
    command = [sys.executable, str(Path(__file__).with_name("run.py")), job.experiment, "--data", job.data]
    command += ["--models", job.model, "--seeds", str(job.seed), "--output", str(given.output)]
    command += ["--workers", str(given.workers)]
    if job.experiment in BEGIN_AS_A_FILE and given.branch_weights is not None:
        command += ["--branch-weights", str(given.branch_weights)]
    if given.device is not None:
        command += ["--device", given.device]
    if given.epochs is not None:
        command += ["--epochs", str(given.epochs)]
    with (given.output / "logs" / f"{job.name}.log").open("ab") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)


def stop(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ask all to stop and wait; what does not stop in time is ended."""
    for process in running.values():
        os.killpg(process.pid, signal.SIGINT)
    until = time.monotonic() + TO_STOP
    for process in running.values():
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", help=f"EXPERIMENT:DATA, of {', '.join(SETTINGS)}")
    parser.add_argument("--branch-weights", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2, help="of each run")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, default=Path("runs/proof"))
    given = parser.parse_args()
    for text in given.experiments:
        if text.partition(":")[0] not in SETTINGS or not text.partition(":")[2]:
            parser.error(f"{text}: EXPERIMENT:DATA is wanted, an experiment of {', '.join(SETTINGS)}")
    return given


if __name__ == "__main__":
    main()
