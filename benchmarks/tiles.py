"""Whole, in tiles, or in tiles that keep context, at about equal multiply-adds? The same weights on the same photos.

    python benchmarks/tiles.py train --data aerial-cars --branch-weights vit_small_patch14_dinov2.safetensors
    python benchmarks/tiles.py judge --data aerial-cars
    python benchmarks/tiles.py table

Three trainings: `start` on tiles around objects, whose scales reach from a tile's to a whole photo's; from its weights
`tiles`, the same for some more steps, and `context`, as many steps with a wider view for the coarser branch. Then the
photos of `val` are predicted in each of `ROWS`, from the file to the result: AP, seconds and memory come from the same
predictions. All of it can be interrupted: the same command goes on with a training, and repeats nothing that ended.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import piip
from piip import config, tasks
from piip.benchmark.machine import peak_memory
from piip.data.batches import padded_size
from piip.data.transforms import size_in_tests
from piip.evaluation.coco import evaluate_results
from piip.evaluation.judging import DRAWS, Judging
from piip.prediction.objects import Result
from piip.profile.measured import counts_of_parts
from piip.structures import Size
from piip.tiles.grid import Tile, grid

TILE = 512
"""pixels of a photo, which a network of 256 sees at half their size"""
WHOLE = 0.69
"""of a photo's size, at which it takes as many multiply-adds as its tiles, which overlap"""
VIEWS: tuple[config.View, ...] = (1, 2)
FREEZE = "branches,interactions"
EPOCHS = 4
"""of each training, as long as it takes: the photos are listed as often as there are steps for"""
RECIPE: dict[str, Any] = {"lr": 1e-3, "lr_batch_size": None, "grad_clip": 5.0, "ema": 0.99,
                          "augmentation": {"tiles": TILE, "zoom": (0.85, 1.5), "colour": 0.2}}  # fmt: skip
LIMITS = (0, 40, 60)
"""sides in pixels of a photo, for AP by size: the terciles of these objects are about there"""


class Training(NamedTuple):
    """One of three."""

    part: float
    """of all steps"""
    settings: dict[str, Any]
    views: tuple[config.View, ...] | None = None


TRAININGS = {
    "start": Training(0.6, {"schedule": "constant", "warmup_iters": 10}),
    "tiles": Training(0.2, {"schedule": "cosine", "warmup_iters": 10}),
    "context": Training(0.2, {"schedule": "cosine", "warmup_iters": 10}, VIEWS),
}
IN_TILES: dict[str, Any] = {"tiles": TILE, "batch_size": 8}
ROWS: dict[str, tuple[str, dict[str, Any], tuple[config.View, ...] | None]] = {
    "whole": ("tiles", {}, None),
    "tiles": ("tiles", IN_TILES, None),
    "tiles with context": ("context", IN_TILES, VIEWS),
    "the same weights without context": ("context", IN_TILES, (1, 1)),
    "the weights of `tiles` with context, which they never saw": ("tiles", IN_TILES, VIEWS),
}
"""what is judged: whose weights, how they predict, and what the branches see"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "judge", "table"))
    parser.add_argument("--data", type=Path, help="a COCO folder")
    parser.add_argument("--model", default=str(Path(__file__).with_suffix(".yaml")))
    parser.add_argument("--branch-weights", type=Path, help="every branch begins as this file; else at random")
    parser.add_argument("--freeze", default=FREEZE, help="parts that keep their weights; empty: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000, help="of the three trainings together")
    parser.add_argument("--batch", type=int, default=4, help="tiles of a step")
    parser.add_argument("--photos", type=int, help="judge by so many photos from all over val; usually by all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="bf16" if torch.cuda.is_available() else "fp32", help="of training")
    parser.add_argument("--output", type=Path, default=Path("runs/tiles"))
    given = parser.parse_args()
    if given.what == "table":
        print_table(read_rows(given.output / "tiles.jsonl"))
        return
    if given.data is None:
        parser.error("--data is missing")
    given.output.mkdir(parents=True, exist_ok=True)
    if given.what == "train":
        for name in TRAININGS:
            train(given, name)
    else:
        for name in ROWS:
            judge(given, name)


# -- training ---------------------------------------------------------------------------------------------------------


def train(given: argparse.Namespace, name: str) -> None:
    """One training to its end; nothing where it has ended."""
    folder = run_folder(given, name)
    if (folder / "ended.json").is_file():
        return
    began = time.process_time()
    if (folder / "weights" / "last.ckpt").is_file():
        _, result = piip.PIIP.resume(folder, device=given.device)
    else:
        chosen = TRAININGS[name]
        data = repeated(given, name, -(-round(given.steps * chosen.part) // EPOCHS) * given.batch)
        result = beginning(given, name).train(
            data, EPOCHS, output=given.output, name=folder.name, seed=given.seed, workers=given.workers,
            batch_size=given.batch, precision=given.precision, freeze=given.freeze or (), check_images=False,
            save_minutes=3.0, log="none", **RECIPE, **chosen.settings,
        )  # fmt: skip
    if result.end != "finished":
        raise SystemExit(f"{name}: {result.end}; the same command goes on with it")
    about = {"steps": given.steps, "batch": given.batch, "cpu_seconds": round(time.process_time() - began),
             "loss": [round(row["loss"], 4) for row in result.history]}  # fmt: skip
    print(name, about, flush=True)
    (folder / "ended.json").write_text(json.dumps(about))


def run_folder(given: argparse.Namespace, name: str) -> Path:
    path: Path = given.output / "detection" / f"{name}-{given.seed}"
    return path


def beginning(given: argparse.Namespace, name: str) -> piip.PIIP:
    """What a training starts from."""
    if name != "start":
        model = piip.PIIP(run_folder(given, "start"), given.device)
        return model.with_views(TRAININGS[name].views or (1,) * len(VIEWS))
    model = piip.PIIP(given.model, given.device)
    if given.branch_weights is not None:
        model.load_branches(dict.fromkeys(range(len(model.config.backbone.branches)), given.branch_weights))
    return model


def repeated(given: argparse.Namespace, name: str, images: int) -> Path:
    """The photos to train on, listed again and again under other names, so that an epoch is long."""
    folder: Path = given.output / "data" / f"{name}-{given.seed}"
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "train").mkdir(exist_ok=True)
    content = json.loads((given.data / "annotations" / "instances_train.json").read_text())
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    photos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(images):
        photo = content["images"][number % len(content["images"])]
        file = Path(photo["file_name"]).name
        listed = f"{number:06d}-{file}"
        if not (folder / "train" / listed).exists():
            os.symlink((given.data / "train" / file).resolve(), folder / "train" / listed)
        photos.append(photo | {"id": number, "file_name": listed})
        for annotation in of_image[photo["id"]]:
            annotations.append(annotation | {"id": len(annotations), "image_id": number})
    written = content | {"images": photos, "annotations": annotations}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(written))
    return folder


# -- judging ----------------------------------------------------------------------------------------------------------


def judge(given: argparse.Namespace, name: str) -> None:
    """The photos of `val` predicted in one way: AP, seconds, memory; a line in `tiles.jsonl`."""
    record: Path = given.output / "tiles.jsonl"
    if (name, given.seed) in {(row["way"], row["seed"]) for row in read_rows(record)}:
        return
    trained, options, views = ROWS[name]
    model = piip.PIIP(run_folder(given, trained), given.device)
    model = model if views is None else model.with_views(views)
    model.predict(np.zeros((TILE, TILE, 3), np.uint8))  # folds the model
    data = tasks.detection.open_split(given.data, "val")
    if given.photos is not None:
        places = np.linspace(0, len(data.images) - 1, given.photos).round().astype(int)
        data = replace(data, images=[data.images[place] for place in places])
    clock = time.process_time if given.device == "cpu" else time.perf_counter
    results, seconds, memory = [], defaultdict[str, list[float]](list), list[float]()
    for photo in data.images:
        began = clock()
        found, taken = predicted(model, photo.path, options or at_its_scale(photo.size))
        seconds[f"{photo.size[1]} x {photo.size[0]}"].append(clock() - began)
        memory.append(taken)
        results += found.to_coco(photo.id, data.category_ids)
    metrics = evaluate_results(results, data, masks=False, judging=Judging(LIMITS, DRAWS))
    row = {
        "way": name,
        "seed": given.seed,
        "photos": len(data.images),
        "device": given.device,
        "gmacs": statistics.mean(multiply_adds(model.config, photo.size, options) for photo in data.images) / 1e9,
        "seconds": {size: statistics.mean(values) for size, values in seconds.items()},
        "gigabytes": max(memory),
        "metrics": metrics.to_dict(),
    }
    print(name, {key: row[key] for key in ("gmacs", "seconds", "gigabytes")}, metrics.box.numbers, flush=True)
    with record.open("a") as lines:
        lines.write(json.dumps(row) + "\n")


def predicted(model: piip.PIIP, photo: Path, options: Mapping[str, Any]) -> tuple[Result, float]:
    """What is found in a photo, and the GB beyond what was held before."""
    found: list[Result] = []
    memory = peak_memory(lambda: found.append(model.predict(photo, conf=0.0, **options)), torch.device(model.device))
    return found[0], float("nan") if memory is None else memory


def at_its_scale(photo: Size) -> dict[str, Any]:
    """How a photo is predicted whole."""
    return {"image_size": round(WHOLE * max(photo))}


def multiply_adds(described: config.Model, photo: Size, options: Mapping[str, Any]) -> int:
    """Of a photo, in tiles or, without options, whole."""
    if not options:
        described = described.predicting_at(at_its_scale(photo)["image_size"])
    tiles = grid(photo, options["tiles"]) if options else [Tile(0, 0, photo[1], photo[0])]
    sizes = (size_in_tests((tile.bottom - tile.top, tile.right - tile.left), described.preprocess) for tile in tiles)
    inputs = Counter(padded_size(size, described.preprocess.pad_multiple) for size in sizes)
    return sum(times * macs_of(described, size) for size, times in inputs.items())


@cache
def macs_of(described: config.Model, size: Size) -> int:
    """Of an input of that size."""
    return sum(count.macs for count in counts_of_parts(described, size).values())


# -- the table --------------------------------------------------------------------------------------------------------


def read_rows(record: Path) -> list[dict[str, Any]]:
    """What was judged."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Markdown: a line for each way; AP with its interval of 95 %, of cars alone by size."""
    sizes = [f"{low} to {high} pixels" for low, high in pairwise(LIMITS)]
    titles = ["predicted", "G multiply-adds a photo", "AP", "AP50", "AP50 of draws"]
    titles += [f"AP of cars{text}" for text in ("", *(f", {size}" for size in (*sizes, f"{LIMITS[-1]} and more")))]
    print("| " + " | ".join([*titles, "seconds a photo", "GB above the weights"]) + " |")
    print("|---" * (len(titles) + 2) + "|")
    for row in rows:
        box, ends = row["metrics"]["box"], row["metrics"]["intervals"]["box"]["AP50"]
        of_cars = [row["metrics"]["classes"], *(one["classes"] for one in row["metrics"]["sizes"]["box"])]
        aps = [next(entry for entry in entries if entry["class"] == "car") for entries in of_cars]
        cars = [entry["box_AP"] if "box_AP" in entry else entry["AP"] for entry in aps]
        cells = [row["way"], f"{row['gmacs']:.0f}", f"{box['AP']:.3f}", f"{box['AP50']:.3f}"]
        cells += [f"{ends[0]:.2f} to {ends[1]:.2f}", *("-" if value is None else f"{value:.3f}" for value in cars)]
        timed = ", ".join(f"{value:.1f} at {size}" for size, value in row["seconds"].items())
        print("| " + " | ".join([*cells, timed, f"{row['gigabytes']:.2f}"]) + " |")


if __name__ == "__main__":
    main()
