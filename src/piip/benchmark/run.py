"""A benchmark from beginning to end."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from piip import devices
from piip.benchmark.machine import Roof, describe, now, peak_memory
from piip.benchmark.samples import noise
from piip.benchmark.stopwatch import Stopwatch
from piip.inference import Winograd, choose, fuse
from piip.inference.compiling import compile_backbone
from piip.model import PIIPModel
from piip.profile.facts import image_size
from piip.profile.measured import counts_of_parts
from piip.profile.published import Count
from piip.structures import Batch
from piip.weights.names import open_model

PASSES = 3
"""multiply-adds of forward and backward together, over those of the forward"""


def benchmark(
    name: str | Path,
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    compile: bool = False,
    train: bool = False,
    fold: bool = True,
    rounds: int = 5,
    device: str | None = None,
) -> dict[str, Any]:
    """Run a model on noise, from the network's input to its predictions (or losses and gradients), and measure.

    Args:
        name: of the zoo, with random weights, or a path to weights (anything `piip.PIIP` takes).
        size: side of the square image, or (height, width); None: the published size of the finest branch.
        batch: images at a time.
        compile: with torch.compile; parts are not told apart then.
        train: forward and backward instead of inference.
        fold: run a folded copy (`piip.inference.fuse`), as predictors do; in inference only.
        rounds: how often the model and the roof are measured, in turn, after one round that does not count.
        device: None for the first GPU if there is one, else the CPU.

    Returns:
        `name`, `task`, `input` [height, width], `batch`, `mode` ("inference" or "training"), `folded`, `compiled`;
        `seconds` per batch (median over rounds) and `images_per_second`;
        `gmacs`: billions of multiply-adds of a batch, three times the forward's in training, and
        `gmacs_by_part` of one image's forward;
        `rate` = gmacs / seconds, `roof` the rate of a 2048-cubed matrix product in float32 (median), and
        `share_of_roof` = rate / roof;
        `peak_memory_gb` beyond weights (and gradients) and `weights_gb`; `parts`: a list of {"part", "seconds" (median
        per batch), "share"}, in training those of the forward and "backward"; empty if compiled; `machine`.

    Raises:
        ValueError: unknown name, a size that gives a branch no grid, a batch or rounds below 1.
    """
    if batch < 1 or rounds < 1:
        raise ValueError(f"batch {batch}, rounds {rounds}: use 1 or more")
    where = devices.find(device)
    model = open_model(name).to(where)
    described = model.config
    image = image_size(described.backbone, size)
    fold = fold and not train
    winograd: Winograd = "nowhere" if where.type != "cpu" else "head" if compile else "everywhere"
    counts = counts_of_parts(described, image, fold, winograd)
    model = _prepare(model, compile, train, fold, winograd)
    step = _step(model, noise(model, image, batch, where, train), train)
    watch = Stopwatch(where)
    step(watch)
    memory = peak_memory(lambda: step(watch), where)
    if not compile:
        watch.watch(model)
    times, roofs, parts = _measure(lambda: step(watch), watch, Roof(where), where, rounds)
    return {
        "name": described.name,
        "task": described.task,
        "input": list(image),
        "batch": batch,
        "mode": "training" if train else "inference",
        "folded": fold,
        "compiled": compile,
        **_rates(counts, batch * (PASSES if train else 1), statistics.median(times), statistics.median(roofs)),
        "images_per_second": batch / statistics.median(times),
        "peak_memory_gb": memory,
        "weights_gb": sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9,
        "parts": [] if compile else _parts(parts, times),
        "machine": describe(where),
    }


def _rates(counts: Mapping[str, Count], forwards: int, seconds: float, roof: float) -> dict[str, Any]:
    """Multiply-adds of so many forwards of one image in so many seconds."""
    gmacs = sum(count.macs for count in counts.values()) / 1e9 * forwards
    return {
        "seconds": seconds,
        "gmacs": gmacs,
        "gmacs_by_part": {part: count.macs / 1e9 for part, count in counts.items()},
        "rate": gmacs / seconds,
        "roof": roof,
        "share_of_roof": gmacs / seconds / roof,
    }


def _prepare(model: PIIPModel, compile: bool, train: bool, fold: bool, winograd: Winograd) -> PIIPModel:
    model.head.as_if_trained()
    model.train(train)
    if train:
        choose(model, "train")
    if fold:
        model = fuse(model, winograd=winograd, mode="compile" if compile else "predict")
    if compile:
        compile_backbone(model)
    return model


def _step(model: PIIPModel, data: Batch, train: bool) -> Callable[[Stopwatch], None]:
    def infer(_: Stopwatch) -> None:
        with torch.inference_mode():
            model.predict(data)

    def learn(watch: Stopwatch) -> None:
        total = torch.stack(list(model.loss(data).values())).sum()
        watch.timed("backward", total.backward)()

    return learn if train else infer


def _measure(
    step: Callable[[], None], watch: Stopwatch, roof: Roof, device: torch.device, rounds: int
) -> tuple[list[float], list[float], list[dict[str, float]]]:
    times, roofs, parts = [], [], []
    watch.take()
    for _ in range(rounds):
        roofs.append(roof.rate())
        began = now(device)
        step()
        times.append(now(device) - began)
        parts.append(watch.take())
    return times, roofs, parts


def _parts(rounds: list[dict[str, float]], times: list[float]) -> list[dict[str, Any]]:
    """Medians; what no part accounts for is the head's, and a little of what is between the parts."""
    names = [part for part in rounds[0] if part != "backward"]
    medians = {part: statistics.median(seconds[part] for seconds in rounds) for part in names}
    rest = [total - sum(seconds.values()) for total, seconds in zip(times, rounds, strict=True)]
    medians["head"] = statistics.median(rest)
    if "backward" in rounds[0]:
        medians["backward"] = statistics.median(seconds["backward"] for seconds in rounds)
    whole = statistics.median(times)
    return [{"part": part, "seconds": seconds, "share": seconds / whole} for part, seconds in medians.items()]
