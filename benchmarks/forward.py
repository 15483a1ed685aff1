"""PIIP backbones with their maps against timm's ViT-B at 1024 and the machine's matrix-product rate.

    python benchmarks/forward.py [--model tsb-1120 ...] [--rounds 5] [--threads 2] [--plain] [--cpu-time] [--json FILE]

All are measured alternately in one run, and medians are compared, because the rate of a machine drifts. Weights are
random; fp32, batch 1, inference. Multiply-adds are those really executed (torch's flop counter, on the meta device).
Peak memory is the growth of the process's resident size during one forward, each in a fresh process. PIIP backbones are
folded, as predictors run them; with `--plain` the plain modules, not folded, are measured too.
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
from typing import Any, Literal

import timm
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

MODELS = {
    "tsb-1120": ("piip_tsb_1120_896_448_mask_rcnn", 1120),
    "tsb-1568": ("piip_tsb_1568_1120_672_mask_rcnn", 1568),
    "sbl-1120": ("piip_sbl_1120_672_448_mask_rcnn", 1120),
    "sbl-1568": ("piip_sbl_1568_1120_672_mask_rcnn", 1568),
    "vit-b": ("timm's ViT-B/16", 1024),
}
USUAL = ("tsb-1120", "tsb-1568", "sbl-1120", "vit-b")
MATRIX = 2048
Clock = Callable[[], float]
Kind = Literal["plain", "train", "predict"]


def build(key: str, kind: Kind = "predict") -> tuple[torch.nn.Module, Tensor]:
    """A model in evaluation mode and a square image; a PIIP backbone has its four maps.

    `kind`: the plain modules, what training runs, or folded as predictors run it.
    """
    name, size = MODELS[key]
    image = torch.randn(1, 3, size, size)
    if key == "vit-b":
        return timm.create_model("vit_base_patch16_224", img_size=size, num_classes=0, global_pool="").eval(), image
    from piip import zoo
    from piip.backbone import PIIPBackbone
    from piip.inference import choose
    from piip.inference.cpu.convolutions import fold_convolutions
    from piip.inference.folding.backbone import fold_backbone

    backbone = PIIPBackbone(zoo.entry(name).backbone()).eval()
    if kind == "train":
        choose(backbone, "train")
    if kind == "predict":
        with torch.no_grad():
            fold_backbone(backbone)
            choose(backbone, "predict")
            fold_convolutions(backbone)
    return backbone, image


def multiply_adds(key: str, kind: Kind = "predict") -> float:
    """Giga-multiply-adds of matrix products, convolutions and attention as they are executed."""
    with torch.device("meta"):
        model, image = build(key, kind)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(image)
    return counter.get_total_flops() / 2e9


def seconds(work: Callable[[], Any], clock: Clock) -> float:
    """Of one call."""
    began = clock()
    work()
    return clock() - began


def matrix_rate(clock: Clock) -> float:
    """Giga-multiply-adds per second of a square matrix product: the roof."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    times = [seconds(lambda: torch.matmul(a, b), clock) for _ in range(6)]
    return MATRIX**3 / 1e9 / statistics.median(times[1:])


def peak_memory(key: str, threads: int) -> float:
    """GB of resident memory that one forward adds to the loaded model, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (key, threads))


def _peak_memory(key: str, threads: int) -> float:
    torch.set_num_threads(threads)
    model, image = build(key)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode():
        model(image)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6


def measure(keys: list[str], rounds: int, with_plain: bool, clock: Clock) -> tuple[float, dict[str, list[float]]]:
    """The roof and the seconds of every model, in turn."""
    work: dict[str, Callable[[], Any]] = {}
    for key in keys:
        model, image = build(key)
        work[key] = partial(model, image)
        if with_plain and key != "vit-b":
            work[f"{key} plain"] = partial(build(key, "plain")[0], image)
    roofs: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in work}
    with torch.inference_mode():
        for step in work.values():
            step()
        for _ in range(rounds):
            for name, step in work.items():
                roofs.append(matrix_rate(clock))
                times[name].append(seconds(step, clock))
    return statistics.median(roofs), times


def main() -> None:
    """Measure, print a table, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, help=f"may be repeated; usual: {', '.join(USUAL)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--plain", action="store_true", help="measure the plain modules too")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine: CPU seconds of one thread")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    threads = 1 if arguments.cpu_time else arguments.threads
    torch.set_num_threads(threads)
    clock = time.thread_time if arguments.cpu_time else time.perf_counter

    keys = arguments.model or list(USUAL)
    memory = {} if arguments.no_memory else {key: peak_memory(key, threads) for key in keys}
    roof, times = measure(keys, arguments.rounds, arguments.plain, clock)
    rows = {}
    print(f"{threads} threads, fp32, batch 1; roof: {roof:.1f} G multiply-adds/s")
    print(f"{'':16} {'seconds':>8} {'G mult-adds':>12} {'G/s':>7} {'of the roof':>12} {'peak GB':>8}")
    for name, taken in times.items():
        key = name.split()[0]
        macs = multiply_adds(key, "plain" if name.endswith("plain") else "predict")
        median = statistics.median(taken)
        share, peak = macs / median / roof, memory.get(name, float("nan"))
        print(f"{name:16} {median:8.2f} {macs:12.1f} {macs / median:7.1f} {share:12.1%} {peak:8.2f}")
        rows[name] = {"seconds": median, "gmacs": macs, "share": share, "peak_gb": peak, "runs": taken}
    for key in keys:
        if f"{key} plain" in rows:
            print(f"{key}: folded over plain {rows[key]['seconds'] / rows[f'{key} plain']['seconds']:.2f} of the time")
        if "vit-b" in rows and key != "vit-b":
            print(f"{key}: time per multiply-add over ViT-B's {rows['vit-b']['share'] / rows[key]['share']:.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"roof": roof, "threads": threads, **rows}, indent=2))


if __name__ == "__main__":
    main()
