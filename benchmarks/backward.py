"""Forward and backward of a PIIP backbone against the machine's matrix-product rate; time and peak memory.

    python benchmarks/backward.py [--model tsb-1120] [--rounds 3] [--threads 2] [--plain] [--cpu-time] [--json FILE]

As it trains, and with activation checkpointing, in turn in one run; fp32, batch 1, random weights, stochastic depth
on. The rate is that of three times the forward's multiply-adds. Peak memory is the largest resident size of a fresh
process during one step, weights and gradients included, and its growth over the loaded model.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from forward import MODELS, build, matrix_rate, multiply_adds, seconds

from piip.inference import choose

KINDS = {"usual": False, "checkpointing": True}


def step(model: Any, image: torch.Tensor, kind: str) -> None:
    """One forward and backward."""
    model.set_checkpointing(kind == "checkpointing")
    model.zero_grad(set_to_none=True)
    choose(model, "export" if kind == "plain" else "train")
    sum(level.mean() for level in model(image)).backward()


def peak_memory(key: str, kind: str, threads: int) -> tuple[float, float]:
    """GB: the whole process, and what the step adds to the loaded model."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (key, kind, threads))


def _peak_memory(key: str, kind: str, threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    model, image = build(key, "plain")
    model.train()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(model, image, kind)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6, (peak - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[key for key in MODELS if key != "vit-b"], default="tsb-1120")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--plain", action="store_true", help="measure the plain modules too")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine: CPU seconds of the process")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = 1 if arguments.cpu_time else arguments.threads
    torch.set_num_threads(threads)
    # The backward runs in a thread of its own, so that the clock must be that of the process.
    clock = time.process_time if arguments.cpu_time else time.perf_counter

    kinds = [*KINDS, "plain"] if arguments.plain else list(KINDS)
    memory = {kind: peak_memory(arguments.model, kind, threads) for kind in kinds if not arguments.no_memory}
    model, image = build(arguments.model, "plain")
    model.train()
    macs = 3 * multiply_adds(arguments.model, "train")
    roofs: list[float] = []
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(arguments.rounds + 1):
        for kind in kinds:
            if turn:
                roofs.append(matrix_rate(clock))
            taken = seconds(lambda kind=kind: step(model, image, kind), clock)
            if turn:
                times[kind].append(taken)
    roof = statistics.median(roofs)
    print(f"{arguments.model}, {threads} threads; roof {roof:.1f} G/s; three forwards: {macs:.1f} G multiply-adds")
    print(f"{'':16} {'seconds':>8} {'G/s':>7} {'of the roof':>12} {'peak GB':>8} {'added GB':>9}")
    rows = {}
    for kind, taken_by_kind in times.items():
        median = statistics.median(taken_by_kind)
        whole, added = memory.get(kind, (float("nan"), float("nan")))
        share = macs / median / roof
        print(f"{kind:16} {median:8.2f} {macs / median:7.1f} {share:12.1%} {whole:8.2f} {added:9.2f}")
        rows[kind] = {"seconds": median, "share": share, "peak_gb": whole, "added_gb": added}
    print(f"checkpointing over usual: {rows['checkpointing']['seconds'] / rows['usual']['seconds']:.2f} of the time")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"roof": roof, "threads": threads, **rows}, indent=2))


if __name__ == "__main__":
    main()
