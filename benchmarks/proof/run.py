"""Does a pyramid give what its largest branch gives, for fewer multiply-adds? Real runs, the same for every model.

    python benchmarks/proof/run.py streets --data camvid --branch-weights vit_small_patch14_dinov2.safetensors
    python benchmarks/proof/run.py streets --table

An experiment is a folder of models here: `pyramid.yaml`, `largest.yaml` (its largest branch alone on the large image),
`equal.yaml` (one branch alone with about as many multiply-adds as the pyramid) and, with `--models small`, `small.yaml`
(the largest branch alone on the small image, which says what the fine branch adds). Each is trained with each seed on
the same data for the same steps with the same changes of the images, and what counts is its last epoch, not its best.
Seeds are the outer loop, so that what there is can be compared at any time. A run that was interrupted goes on, one
that ended is not repeated: start the command again until nothing is left. `--table` prints docs/proof.md's tables.
"""  # fmt: skip

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch
from tables import print_tables

import piip

HERE = Path(__file__).parent
MODELS = ("pyramid", "largest", "equal")
"""that are trained unless others are chosen"""

FROM_SCRATCH: dict[str, Any] = {
    "lr": 2e-3,
    "layer_decay": 1.0,
    "warmup_iters": 100,
    "schedule": "cosine",
    "batch_size": 8,
    "lr_batch_size": None,
    "grad_clip": 5.0,
    "ema": 0.99,
    "drop_smaller": 0,
    "augmentation": {"zoom": (0.8, 1.25), "turn": 0.75},
}
FROM_PRETRAINED: dict[str, Any] = {
    "lr": 2e-4,
    "layer_decay": 0.85,
    "new_lr_factor": 5.0,
    "warmup_iters": 100,
    "batch_size": 8,
    "lr_batch_size": None,
    "grad_clip": 5.0,
    "ema": 0.99,
}
STREETS = {
    "schedule": "poly",
    "class_weights": "balanced",
    "augmentation": {"kind": "segmentation", "resize": (0.7, 1.4), "distortion": 0.4},
}
CROP = {"pyramid": 256, "largest": 256, "equal": 208, "small": 128}
"""of the resized image, for segmentation: the same part of the street for all"""
EVERY = 8
"""epochs between evaluations"""
CELLS = {"schedule": "cosine", "drop_smaller": 0, "augmentation": {"zoom": (0.8, 1.25), "turn": 0.75, "colour": 0.2}}
SETTINGS: dict[str, dict[str, Any]] = {
    "streets": FROM_PRETRAINED | STREETS | {"epochs": 24},
    "cells": FROM_PRETRAINED | CELLS | {"epochs": 16},
    "boards": FROM_SCRATCH | {"epochs": 16},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=SETTINGS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--branch-weights", type=Path, help="every branch begins as this file; else at random")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", type=Path, default=Path("runs/proof"))
    parser.add_argument("--table", action="store_true", help="of the runs that ended; trains nothing")
    given = parser.parse_args()
    if given.table:
        print_tables(HERE / given.experiment, given.output / f"{given.experiment}.jsonl")
        return
    if given.data is None:
        parser.error("--data is missing")
    given.output.mkdir(parents=True, exist_ok=True)
    for seed in map(int, given.seeds.split(",")):
        for model in given.models.split(","):
            run(given, model, seed)


def run(given: argparse.Namespace, model: str, seed: int) -> None:
    """One training to its end, and a line about it."""
    record = given.output / f"{given.experiment}.jsonl"
    if (model, seed) in {(row["model"], row["seed"]) for row in read_rows(record)}:
        return
    settings = SETTINGS[given.experiment] | ({} if given.epochs is None else {"epochs": given.epochs})
    if given.experiment == "streets":
        settings |= {"augmentation": settings["augmentation"] | {"crop": CROP[model]}}
    name = f"{given.experiment}-{model}-{seed}"
    print(f"{name}: {settings}", flush=True)
    started = next(given.output.glob(f"*/{name}/weights/last.ckpt"), None)
    if started is not None:
        _, result = piip.PIIP.resume(started.parents[1], device=given.device)
    else:
        held = piip.PIIP(HERE / given.experiment / f"{model}.yaml", given.device)
        if given.branch_weights is not None:
            held.load_branches(dict.fromkeys(range(len(held.config.backbone.branches)), given.branch_weights))
        own = {"output": given.output, "name": name, "seed": seed, "workers": given.workers}
        always = {"precision": given.precision, "eval_interval": EVERY}
        result = held.train(given.data, **own, **always, **settings)
    if result.end != "finished":
        raise SystemExit(f"{name}: {result.end}; the same command goes on with it")
    with (result.folder / "results.csv").open(newline="") as file:
        history = [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    row = {"model": model, "seed": seed, "device": given.device, "settings": settings, "history": history}
    with record.open("ab", buffering=0) as lines:  # in one piece: runs may end side by side
        lines.write(json.dumps(row).encode() + b"\n")


def read_rows(record: Path) -> list[dict[str, Any]]:
    """The runs that ended."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []


def _number(text: str | None) -> float | str | None:
    try:
        return float(text or "")
    except ValueError:
        return text


if __name__ == "__main__":
    main()
