"""The official TSB 1120/896/448 backbone against timm's ViT-B at 1024 and the machine's matrix-product rate.

    python benchmarks/forward.py [--rounds 5] [--threads 2] [--cpu-time] [--json FILE]

All three are measured alternately in one run, and medians are compared, because the rate of a machine drifts. Weights
are random; fp32, batch 1, inference. Multiply-adds are those really executed (`piip.profile`, torch's flop counter).
Peak memory is the growth of the process's resident size during one forward, each in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

MODEL = "piip_tsb_1120_896_448_mask_rcnn"
MATRIX = 2048


def piip_backbone() -> tuple[torch.nn.Module, Tensor, float]:
    """The backbone with its four maps, a square input, and its giga-multiply-adds."""
    from piip import zoo
    from piip.backbone import PIIPBackbone
    from piip.profile import info

    gmacs = info(MODEL)["as_run"]["gmacs"]
    backbone = PIIPBackbone(zoo.entry(MODEL).backbone())
    return backbone.eval(), torch.randn(1, 3, 1120, 1120), gmacs


def vit_b() -> tuple[torch.nn.Module, Tensor, float]:
    """timm's ViT-B/16 on 1024 pixels, features only."""
    with torch.device("meta"):  # on the CPU the counter does not see attention; and the peak below is still to come
        model, image = _vit_b()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(image)
    return *_vit_b(), counter.get_total_flops() / 2e9


def _vit_b() -> tuple[torch.nn.Module, Tensor]:
    model = timm.create_model("vit_base_patch16_224", img_size=1024, num_classes=0, global_pool="").eval()
    return model, torch.randn(1, 3, 1024, 1024)


MODELS: dict[str, Callable[[], tuple[torch.nn.Module, Tensor, float]]] = {
    "PIIP TSB 1120/896/448": piip_backbone,
    "timm ViT-B/16 1024": vit_b,
}


def seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Of one call."""
    began = clock()
    work()
    return clock() - began


def matrix_rate(clock: Callable[[], float]) -> float:
    """Giga-multiply-adds per second of a square matrix product."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    times = [seconds(lambda: torch.matmul(a, b), clock) for _ in range(6)]
    return MATRIX**3 / 1e9 / min(times[1:])


def peak_memory(name: str, threads: int) -> float:
    """GB of resident memory that one forward adds to the loaded model, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (name, threads))


def _peak_memory(name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    model, image, _ = MODELS[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode():
        model(image)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6


def main() -> None:
    """Measure, print a table, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine: CPU seconds of one thread")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.cpu_time:
        arguments.threads = 1
    torch.set_num_threads(arguments.threads)
    clock = time.thread_time if arguments.cpu_time else time.perf_counter

    memory = {name: peak_memory(name, arguments.threads) for name in MODELS}
    built = {name: build() for name, build in MODELS.items()}
    rates: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in built}
    with torch.inference_mode():
        for model, image, _ in built.values():
            model(image)
        for _ in range(arguments.rounds):
            for name, (model, image, _) in built.items():
                rates.append(matrix_rate(clock))
                times[name].append(seconds(partial(model, image), clock))

    roof = statistics.median(rates)
    rows = {}
    print(f"{arguments.threads} threads, fp32, batch 1; matrix product: {roof:.1f} G multiply-adds/s")
    print(f"{'':24} {'seconds':>8} {'G mult-adds':>12} {'G/s':>7} {'of the rate':>12} {'peak GB':>8}")
    for name, (_, _, gmacs) in built.items():
        median = statistics.median(times[name])
        rate = gmacs / median
        print(f"{name:24} {median:8.2f} {gmacs:12.1f} {rate:7.1f} {rate / roof:12.0%} {memory[name]:8.2f}")
        rows[name] = {"seconds": median, "gmacs": gmacs, "share": rate / roof, "peak_gb": memory[name]}
    first, second = (rows[name] for name in MODELS)
    ratio = (first["seconds"] / first["gmacs"]) / (second["seconds"] / second["gmacs"])
    print(f"time per multiply-add, PIIP over ViT-B: {ratio:.2f}; time, PIIP over ViT-B: "
          f"{first['seconds'] / second['seconds']:.2f}")  # fmt: skip
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"roof": roof, "threads": arguments.threads, **rows}, indent=2))


if __name__ == "__main__":
    main()
