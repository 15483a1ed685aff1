"""How fast an exported file is on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import RenderableType

from piip.benchmark.machine import Roof, describe, peak_memory
from piip.export.exported import load_exported

CPU = torch.device("cpu")


def benchmark_exported(path: str | Path, batch: int | None = None, rounds: int = 5) -> dict[str, Any]:
    """Run a file's graph on noise, from the network's input to its raw outputs, and measure.

    Args:
        path: of the file.
        batch: images at a time; None: as many as the graph takes.
        rounds: how often it is measured, in turn with the machine's roof, after one round that does not count.

    Returns:
        `name`, `task`, `input`, `batch`, `mode`, `seconds`, `images_per_second`, `roof`, `peak_memory_gb` and `machine`
        as of `piip.benchmark.benchmark`, and `runtime`.

    Raises:
        ValueError: a batch or rounds below 1.
    """
    if rounds < 1 or (batch is not None and batch < 1):
        raise ValueError(f"batch {batch}, rounds {rounds}: use 1 or more")
    exported = load_exported(path)
    described = exported.description
    images = torch.randn(batch or described.batch, 3, *described.size)

    def step() -> None:
        exported.model.outputs(images)

    step()
    memory, roof = peak_memory(step, CPU), Roof(CPU)
    times, roofs = [], []
    for _ in range(rounds):
        roofs.append(roof.rate())
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    seconds = statistics.median(times)
    return {
        "name": described.config.name,
        "task": described.config.task,
        "input": list(described.size),
        "batch": len(images),
        "mode": "inference",
        "runtime": exported.runtime.version,
        "seconds": seconds,
        "images_per_second": len(images) / seconds,
        "roof": statistics.median(roofs),
        "peak_memory_gb": memory,
        "machine": describe(CPU),
    }


def report(figures: dict[str, Any]) -> Iterator[RenderableType]:
    """The lines of `benchmark_exported`'s result."""
    machine, (height, width) = figures["machine"], figures["input"]
    yield f"{machine['processor']}, {machine['threads']} threads; {figures['runtime']}; random input"
    yield f"{figures['name']} at {height} x {width}, batch {figures['batch']} (inference, exported)"
    yield f"{figures['seconds']:.3f} s, {figures['images_per_second']:.3g} images/s"
    yield f"matrix product in torch, float32: {figures['roof']:.1f} G multiply-adds/s"
    if figures["peak_memory_gb"] is not None:
        yield f"peak memory {figures['peak_memory_gb']:.2f} GB besides the weights"
