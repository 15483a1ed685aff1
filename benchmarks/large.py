"""Whole photos at their own size: memory above the weights, and time per pixel against that of the usual size.

    python benchmarks/large.py [--model NAME] [--sizes 1568x941 4000x2250] [--rounds 1] [--threads 2] [--cpu-time]

Random weights, made to find as much as trained ones; photos of noise in JPEG files, width x height. What is measured is
`PIIP.predict(file, image_size="native")`: from the file to the masks' run lengths. The weights are those of the folded
copy too, which a small prediction makes first. A round takes every size in turn; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import piip
from piip.benchmark.machine import peak_memory
from piip.model import PIIPModel

MODEL = "piip_tsb_1568_1120_672_mask_rcnn"
WARM_UP = 256


def build(name: str) -> piip.PIIP:
    """With random weights, and the folded copy made."""
    torch.manual_seed(0)
    model = PIIPModel(piip.PIIP(name).config)
    model.head.as_if_trained()
    built = piip.PIIP(model, device="cpu")
    built.predict(np.zeros((WARM_UP, WARM_UP, 3), np.uint8))
    return built


def photo(size: tuple[int, int], folder: Path) -> Path:
    """Noise in blocks of 8 pixels, of (width, height)."""
    coarse = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    path = folder / f"{size[0]}x{size[1]}.jpg"
    Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)[: size[1], : size[0]]).save(path)
    return path


def measured(work: Callable[[], object], clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds, and GB above what was held before."""
    seconds: list[float] = []

    def timed() -> None:
        began = clock()
        work()
        seconds.append(clock() - began)

    memory = peak_memory(timed, torch.device("cpu"))
    return seconds[0], float("nan") if memory is None else memory


def size_of(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--sizes", type=size_of, nargs="+", default=[(1568, 941), (4000, 2250)])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu-time", action="store_true", help="count the process's own seconds: for a busy machine")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    clock = time.process_time if given.cpu_time else time.perf_counter
    model = build(given.model)
    found: dict[tuple[int, int], list[tuple[float, float]]] = {size: [] for size in given.sizes}
    with tempfile.TemporaryDirectory() as folder:
        photos = {size: photo(size, Path(folder)) for size in given.sizes}
        for _ in range(given.rounds):
            for size, path in photos.items():
                found[size].append(measured(lambda path=path: model.predict(path, image_size="native"), clock))
    print(f"{given.model}, {torch.get_num_threads()} threads")
    medians = {size: statistics.median(seconds for seconds, _ in runs) for size, runs in found.items()}
    per_pixel = {size: seconds / (size[0] * size[1]) for size, seconds in medians.items()}
    first = per_pixel[given.sizes[0]]
    for size, runs in found.items():
        memory = statistics.median(memory for _, memory in runs)
        print(
            f"{size[0]} x {size[1]}: {medians[size]:.1f} s, {per_pixel[size] * 1e6:.2f} s per megapixel "
            f"({per_pixel[size] / first:.2f} of the first), {memory:.2f} GB above the weights",
            flush=True,
        )


if __name__ == "__main__":
    main()
