"""The tables of docs/proof.md, from the lines that `run.py` wrote and from the models as they are."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import piip

METRICS = ("box_AP", "mIoU")
"""the first one that a run has"""
ROUNDS = 7
CLASSES = {"streets": 11, "cells": 3, "boards": 6}
"""of the data; those of COCO or ADE20K would cost more at prediction"""
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""quantile 0.975 of Student's t by the number of values: for an interval of 95 % around their mean"""


def print_tables(folder: Path, record: Path) -> None:
    """What each model costs and reaches, and the pyramid's difference to the others, seed by seed."""
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    metric = next(name for name in METRICS if name in rows[0]["history"][-1])
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["model"], {})[row["seed"]] = row["history"][-1][metric]
    models = [model for model in ("pyramid", "largest", "equal", "small") if model in found]
    facts = {model: piip.info(folder / f"{model}.yaml") for model in models}
    seconds = in_turn([folder / f"{model}.yaml" for model in models], CLASSES[folder.name])
    print(f"| | multiply-adds as run | the paper's way | seconds per image | {metric} of each seed | mean |")
    print("|---|---|---|---|---|---|")
    for model, median in zip(models, seconds, strict=True):
        whole, paper = _multiply_adds(facts[model])
        values = found[model]
        each = ", ".join(f"{value:.4f}" for _, value in sorted(values.items()))
        mean = statistics.mean(values.values())
        print(f"| {model} | {whole:.2f} G | {paper:.2f} G | {median:.3f} | {each} | {mean:.4f} |")
    print("\nPyramid less the other, seed by seed:\n")
    for model in models[1:]:
        pyramid = found.get("pyramid", {})
        differences = [pyramid[seed] - value for seed, value in found[model].items() if seed in pyramid]
        print(f"- {model}: {interval(differences) if differences else 'no seed of both'}")
    print("\nBy epoch, mean of the seeds:\n")
    print_curves(rows, models, metric)


def interval(values: Sequence[float]) -> str:
    """Mean and interval of 95 %, as far as there are enough values."""
    mean = statistics.mean(values)
    if len(values) not in STUDENT:
        return f"{mean:+.4f} (one seed)"
    reach = STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:+.4f}, 95 % {mean - reach:+.4f} to {mean + reach:+.4f} ({len(values)} seeds)"


def print_curves(rows: Sequence[dict[str, Any]], models: Sequence[str], metric: str) -> None:
    """A line per model."""
    epochs = [epoch for epoch, row in enumerate(rows[0]["history"]) if isinstance(row.get(metric), float)]
    print("| epoch | " + " | ".join(str(epoch + 1) for epoch in epochs) + " |")
    print("|---" * (len(epochs) + 1) + "|")
    for model in models:
        curves = [row["history"] for row in rows if row["model"] == model]
        means = [statistics.mean(curve[epoch][metric] for curve in curves) for epoch in epochs]
        print(f"| {model} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")


def in_turn(models: Sequence[Path], classes: int) -> list[float]:
    """CPU seconds per image of each, medians of rounds in which each has its turn; random weights, one image at a time.

    The photos are of the size that the first of them takes, as those of the data are.
    """
    names = tuple(map(str, range(classes)))
    configs = [piip.PIIP(path, "cpu").config.model_copy(update={"classes": names}) for path in models]
    held = [piip.PIIP(config, "cpu") for config in configs]
    wanted = configs[0].preprocess
    size = (wanted.short_side, wanted.long_side, 3)
    images = [torch.randint(0, 256, size, dtype=torch.uint8).numpy() for _ in range(ROUNDS + 1)]
    taken: list[list[float]] = [[] for _ in held]
    for image in images:
        for one, times in zip(held, taken, strict=True):
            begun = time.process_time()
            one.predict(image)
            times.append(time.process_time() - begun)
    return [statistics.median(times[1:]) for times in taken]


def _multiply_adds(facts: dict[str, Any]) -> tuple[float, float]:
    """Billions: the whole model as it runs, and the backbone as the paper counts it."""
    return facts["whole_model"]["gmacs"], facts["published_convention"]["gmacs"]
