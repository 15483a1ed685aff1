"""The folded copy that predicts on a CPU against the plain model: backbone and neck, in one run.

    python benchmarks/inference.py [--model NAME] [--size 1120] [--rounds 5] [--threads 2] [--cpu-time] [--json FILE]

The plain model is `backbone/` and `heads/` as they stand: grid_sample, transposed convolutions, padded windows; "lean"
is the same model as it trains on a CPU. All are measured in turn, with the rate of a 2048-cubed matrix product; medians
are compared. fp32, batch 1, random weights. Multiply-adds are counted by `piip.profile`. The largest difference of the
outputs is printed in units of their standard deviation.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from piip import zoo
from piip.benchmark.machine import MATRIX, peak_memory
from piip.inference import choose, fuse
from piip.model import PIIPModel
from piip.profile.measured import counts_of_parts

MODEL = "piip_tsb_1120_896_448_mask_rcnn"
Clock = Callable[[], float]


def build(name: str) -> tuple[PIIPModel, PIIPModel, PIIPModel]:
    """Plain, lean and folded: random weights, whose scales are not those that fresh weights have."""
    torch.manual_seed(0)
    model = PIIPModel(zoo.entry(name).config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    lean = copy.deepcopy(model)
    choose(lean, "train")
    return model, lean, fuse(model)


def backbone_and_neck(model: PIIPModel, image: Tensor) -> list[Tensor]:
    neck: Any = model.head.neck
    levels = neck(model.backbone(image))
    return levels if isinstance(levels, list) else [levels]


def seconds(work: Callable[[], Any], clock: Clock) -> float:
    began = clock()
    work()
    return clock() - began


def gmacs(name: str, size: int, folded: bool) -> float:
    """Of backbone and neck."""
    counts = counts_of_parts(zoo.entry(name).config(), (size, size), folded)
    return sum(count.macs for part, count in counts.items() if part != "head") / 1e9


def largest_difference(actual: list[Tensor], expected: list[Tensor]) -> float:
    return max(((a - e).abs().max() / e.std()).item() for a, e in zip(actual, expected, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine: CPU seconds of one thread")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    clock = time.thread_time if arguments.cpu_time else time.perf_counter

    model, lean, fused = build(arguments.model)
    size = arguments.size or model.config.backbone.branches[0].size
    image = torch.randn(1, 3, size, size)
    a = torch.randn(MATRIX, MATRIX)

    paths: dict[str, Callable[[], list[Tensor]]] = {
        "plain": lambda: backbone_and_neck(model, image),
        "lean": lambda: backbone_and_neck(lean, image),
        "folded": lambda: backbone_and_neck(fused, image),
    }
    times: dict[str, list[float]] = {name: [] for name in paths}
    roofs: list[float] = []
    with torch.inference_mode():
        expected = paths["plain"]()
        difference = {name: largest_difference(run(), expected) for name, run in paths.items()}
        memory = {name: peak_memory(run, torch.device("cpu")) for name, run in paths.items()}
        for _ in range(arguments.rounds):
            roofs.append(MATRIX**3 / 1e9 / min(seconds(lambda: torch.matmul(a, a), clock) for _ in range(3)))
            for name, run in paths.items():
                times[name].append(seconds(run, clock))
    roof = statistics.median(roofs)
    counted = {"lean": gmacs(arguments.model, size, False), "folded": gmacs(arguments.model, size, True)}
    counted["plain"] = counted["lean"]  # without the padding of windows, which it computes too
    print(f"{arguments.model}, backbone and neck at {size}, {torch.get_num_threads()} threads; roof {roof:.1f} G/s")
    rows: dict[str, Any] = {"roof": roof}
    for name, taken in times.items():
        median = statistics.median(taken)
        ratio = median / statistics.median(times["plain"])
        share = counted[name] / median / roof
        print(f"{name:14} {median:7.2f} s, {ratio:5.2f} of plain, {counted[name]:7.1f} G multiply-adds, {share:4.0%} "
              f"of the roof, peak {memory[name] or 0:.2f} GB, differs by {difference[name]:.0e} std")  # fmt: skip
        rows[name] = {"seconds": median, "ratio": ratio, "gmacs": counted[name], "peak_gb": memory[name],
                      "difference": difference[name]}  # fmt: skip
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
