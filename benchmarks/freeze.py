"""A training step of a detector with frozen parts against one without; seconds and peak memory in one run.

    python benchmarks/freeze.py [--model piip_tsb_1120_896_448_mask_rcnn] [--side 1120] [--freeze 2 --freeze backbone]
        [--rounds 3] [--threads 2] [--cpu-time] [--json FILE]

As it trains: losses of eight objects, backward and AdamW, fp32, batch 1, random weights, stochastic depth on. Peak
memory is the largest resident size of a fresh process during two steps (only the second finds the optimizer's state),
and its growth over the loaded model.
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

from piip import zoo
from piip.inference import choose
from piip.model import PIIPModel
from piip.structures import Batch, Instances
from piip.training.freeze import freeze, named_parts, train_mode
from piip.training.optim import build_optimizer
from piip.training.settings import Settings

NOTHING = "nothing"
OBJECTS = 8


class Steps:
    """A model with frozen parts that takes one training step after the other."""

    def __init__(self, name: str, parts: str, side: int) -> None:
        torch.manual_seed(0)
        self.model = PIIPModel(zoo.entry(name).config())
        frozen: Any = () if parts == NOTHING else named_parts(parts)
        freeze(self.model, frozen)
        choose(self.model, "train")
        train_mode(self.model, frozen)
        self.optimizer = build_optimizer(self.model, Settings())
        corners = torch.rand(OBJECTS, 2) * side * 0.7
        boxes = torch.cat([corners, corners + side * 0.2], dim=1)
        masks = torch.zeros(OBJECTS, side, side, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        target = Instances(boxes, torch.zeros(OBJECTS, dtype=torch.long), masks)
        self.batch = Batch(torch.randn(1, 3, side, side), targets=[target])

    def take(self) -> None:
        """One step."""
        torch.manual_seed(1)
        torch.stack(list(self.model.loss(self.batch).values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def peak_memory(name: str, parts: str, side: int, threads: int) -> tuple[float, float]:
    """GB: of the whole process, and what two steps add to the loaded model."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (name, parts, side, threads))


def _peak_memory(name: str, parts: str, side: int, threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    steps = Steps(name, parts, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        steps.take()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6, (peak - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="piip_tsb_1120_896_448_mask_rcnn")
    parser.add_argument("--side", type=int, default=1120, help="of the square image")
    parser.add_argument("--freeze", action="append", help="default: the largest branch, and the backbone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine: CPU seconds of the process")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = 1 if arguments.cpu_time else arguments.threads
    torch.set_num_threads(threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    last = str(len(zoo.entry(arguments.model).config().backbone.branches) - 1)
    kinds = [NOTHING, *(arguments.freeze or [last, "backbone"])]

    memory = {kind: peak_memory(arguments.model, kind, arguments.side, threads) for kind in kinds}
    steps = {kind: Steps(arguments.model, kind, arguments.side) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(arguments.rounds + 1):
        for kind in kinds:
            began = clock()
            steps[kind].take()
            if turn:
                times[kind].append(clock() - began)
    rows = {}
    usual = statistics.median(times[NOTHING])
    print(f"{arguments.model}, {arguments.side} pixels, {threads} threads")
    print(f"{'frozen':28} {'seconds':>8} {'ratio':>6} {'peak GB':>8} {'added GB':>9} {'ratio':>6}")
    for kind in kinds:
        median, (peak, added) = statistics.median(times[kind]), memory[kind]
        share = added / memory[NOTHING][1]
        print(f"{kind:28} {median:8.2f} {median / usual:6.2f} {peak:8.2f} {added:9.2f} {share:6.2f}")
        rows[kind] = {"seconds": median, "ratio": median / usual, "peak_gb": peak, "added_gb": added, "added": share}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"threads": threads, "side": arguments.side, **rows}, indent=2))


if __name__ == "__main__":
    main()
