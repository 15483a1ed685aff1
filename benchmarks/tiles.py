"""Whole, in tiles, or in tiles that keep context, at equal multiply-adds? Trained alike, judged on the same photos.

    python benchmarks/tiles.py whole --data aerial-cars        # and tiles, and context; also several at once
    python benchmarks/tiles.py seconds --data aerial-cars      # alone on the machine, when these have ended
    python benchmarks/tiles.py table

One model, three ways to see a photo (`WAYS`): at its own pixels; in tiles of 448 pixels on the model's 320, which is as
many multiply-adds, because tiles overlap; or the same with a wider view for the coarsest branch. Each is trained from
random weights for as many steps with the same rates and seed; a step of tiles has four times as many images as one of
photos, and so about as many objects. A training that ended is not repeated, one that was interrupted begins anew. Its
line in `tiles.jsonl` also holds what its weights give when they are predicted another way.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

import piip
from piip import config, tasks
from piip.data.batches import padded_size
from piip.data.transforms import size_in_tests
from piip.evaluation.coco import CocoMetrics
from piip.profile.measured import counts_of_parts
from piip.structures import Size
from piip.tiles.grid import Tile, grid

MODEL = "piip_nano_convnext_mask_rcnn"
TILE = 448
"""pixels of a photo"""
EPOCHS = 3
"""which are as long as it takes: the photos are listed as often as there are steps for"""
RECIPE: dict[str, Any] = {"lr": 1.5e-3, "lr_batch_size": None, "schedule": "cosine", "warmup_iters": 100,
                          "grad_clip": 5.0, "ema": 0.995}  # fmt: skip
CHANGES: dict[str, Any] = {"zoom": (0.6, 1.4), "colour": 0.3}
SMALL = 48
"""pixels of a side, above which half of the objects are; COCO's limit is 32"""
DETECTIONS = 300


class Way(NamedTuple):
    """How photos are seen."""

    sizes: tuple[int, ...] | None
    """of the branches in training; None: the model's own"""
    views: tuple[config.View, ...] | None
    side: int
    """of what a training image shows, in pixels of the photo"""
    batch: int
    predicted: str
    """a key of `PREDICTED`"""


WAYS: dict[str, Way] = {
    "whole": Way((1920, 1200, 960), None, 1920, 2, "whole"),
    "tiles": Way(None, None, TILE, 8, "tiles"),
    "context": Way(None, (1, 1, 3), TILE, 8, "tiles"),
}
PREDICTED: dict[str, dict[str, Any]] = {"whole": {"image_size": "native"}, "tiles": {"tiles": TILE, "batch_size": 16}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*WAYS, "seconds", "table"))
    parser.add_argument("--data", type=Path, help="a COCO folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, help="images of a step; usually 8 tiles or 2 photos")
    parser.add_argument("--views", help="of context, such as 1,2,4")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--precision", default="bf16" if torch.cuda.is_available() else "fp32", help="of training")
    parser.add_argument("--output", type=Path, default=Path("runs/tiles"))
    given = parser.parse_args()
    record = given.output / "tiles.jsonl"
    if given.what == "table":
        print_table(read_rows(record), read_rows(record.with_name("seconds.jsonl")))
        return
    if given.data is None:
        parser.error("--data is missing")
    given.output.mkdir(parents=True, exist_ok=True)
    if given.what == "seconds":
        measure_seconds(given, read_rows(record))
    else:
        train(given, record)


def read_rows(record: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []


def append(record: Path, row: Mapping[str, Any]) -> None:
    """In one write, as other processes append, too."""
    with record.open("a") as lines:
        lines.write(json.dumps(row) + "\n")


# -- training ---------------------------------------------------------------------------------------------------------


def train(given: argparse.Namespace, record: Path) -> None:
    """One training to its end, and a line about it."""
    way = WAYS[given.what]
    if given.views is not None and way.views is not None:
        way = way._replace(views=tuple("image" if part == "image" else float(part) for part in given.views.split(",")))
    batch = given.batch or way.batch
    about = {"way": given.what, "views": way.views and list(way.views), "seed": given.seed, "steps": given.steps,
             "batch": batch}  # fmt: skip
    if any(about.items() <= row.items() for row in read_rows(record)):
        return
    name = "-".join(str(part) for value in about.values() for part in (value if isinstance(value, list) else [value]))
    folder = given.output / "detection" / name
    shutil.rmtree(folder, ignore_errors=True)  # of one that was interrupted
    model = piip.PIIP(MODEL, device=given.device)
    model = model if way.sizes is None else model.with_sizes(way.sizes)
    model = model if way.views is None else model.with_views(way.views)
    data = repeated(given.data, given.output / "data" / name, -(-given.steps // EPOCHS) * batch)
    result = model.train(
        data, EPOCHS, output=given.output, name=name, seed=given.seed, workers=given.workers, batch_size=batch,
        precision=given.precision, augmentation=CHANGES | {"tiles": way.side}, check_images=False, save_minutes=None,
        log="none", **RECIPE,
    )  # fmt: skip
    trained = piip.PIIP(result.last_weights, given.device)
    judged = {way.predicted: score(trained, given.data, way.predicted)}
    if given.what == "tiles":
        judged["whole"] = score(trained, given.data, "whole")
    if way.views is not None:
        plain = trained.with_views((1,) * len(way.views))
        judged["tiles, without the views"] = score(plain, given.data, "tiles")
    photos = [image.size for image in tasks.detection.open_split(given.data, "val").images]
    predicted = [name.partition(",")[0] for name in judged]
    append(record, {
        **about,
        "weights": str(result.last_weights),
        "device": given.device,
        "training_seconds": round(sum(row["seconds"] for row in result.history)),
        "loss": [round(row["loss"], 4) for row in result.history],
        "gmacs": {key: round(multiply_adds(trained.config, photos, key) / 1e9, 1) for key in predicted},
        "judged": judged,
    })  # fmt: skip


def repeated(source: Path, folder: Path, images: int) -> Path:
    """The photos to train on, listed again and again under other names, so that an epoch is long."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "annotations").mkdir(parents=True)
    (folder / "train").mkdir()
    content = json.loads((source / "annotations" / "instances_train.json").read_text())
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    photos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(images):
        photo = content["images"][number % len(content["images"])]
        file = Path(photo["file_name"]).name
        name = f"{number:06d}-{file}"
        os.symlink((source / "train" / file).resolve(), folder / "train" / name)
        photos.append(photo | {"id": number, "file_name": name})
        for annotation in of_image[photo["id"]]:
            annotations.append(annotation | {"id": len(annotations), "image_id": number})
    written = content | {"images": photos, "annotations": annotations}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(written))
    return folder


# -- judging ----------------------------------------------------------------------------------------------------------


def score(model: piip.PIIP, data: Path, way: str) -> dict[str, Any]:
    """AP of the photos of `val`, with their interval."""
    metrics = model.val(data, workers=0, detections=DETECTIONS, area_limits=(0, SMALL), **PREDICTED[way])
    assert isinstance(metrics, CocoMetrics)
    box, small = metrics.box, metrics.box.sizes[0]
    found = {name: box.numbers[name] for name in ("AP", "AP50", "APs", "AR100")}
    of_cars = {"car AP": box.per_class[metrics.classes.index("car")], "small car AP": small.per_class[0]}
    return found | of_cars | {"small AP": small.ap, "AP interval": box.intervals["AP"]}


def multiply_adds(described: config.Model, photos: Sequence[Size], way: str) -> float:
    """Of a photo, in the mean."""
    options = PREDICTED[way]
    if "image_size" in options:
        described = described.predicting_at(options["image_size"])

    @cache
    def of(size: Size) -> int:
        return sum(count.macs for count in counts_of_parts(described, size).values())

    def inputs(photo: Size) -> Iterator[Size]:
        tiles = grid(photo, options["tiles"]) if "tiles" in options else [Tile(0, 0, photo[1], photo[0])]
        for tile in tiles:
            size = size_in_tests((tile.bottom - tile.top, tile.right - tile.left), described.preprocess)
            yield padded_size(size, described.preprocess.pad_multiple)

    return statistics.mean(sum(map(of, inputs(photo))) for photo in photos)


def measure_seconds(given: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    """From a file to its result, for the first training of each way and views; a round over all photos warms up."""
    photos = tasks.detection.open_split(given.data, "val").images
    for row in {_named(row): row for row in reversed(rows)}.values():
        model = piip.PIIP(row["weights"], given.device)
        options = PREDICTED[WAYS[row["way"]].predicted]
        for counts in (False, True):
            began, seconds = time.perf_counter(), defaultdict[str, list[float]](list)
            for photo in photos:
                began = time.perf_counter()
                model.predict(photo.path, conf=0.05, detections=DETECTIONS, **options)
                seconds["all"].append(time.perf_counter() - began)
                seconds[f"{photo.size[1]} x {photo.size[0]}"].append(seconds["all"][-1])
            if counts:
                means = {size: round(statistics.mean(values), 4) for size, values in seconds.items()}
                print(_named(row), means, flush=True)
                append(given.output / "seconds.jsonl", {"model": _named(row), "device": given.device, "seconds": means})


def _named(row: Mapping[str, Any]) -> str:
    return row["way"] + (", views " + ", ".join(f"{view:g}" if view != "image" else view for view in row["views"])
                         if row["views"] else "")  # fmt: skip


# -- the table --------------------------------------------------------------------------------------------------------


def print_table(rows: Sequence[Mapping[str, Any]], timed: Sequence[Mapping[str, Any]]) -> None:
    """Markdown: a line for each way that weights were trained and predicted, in the mean of their seeds."""
    seconds = {row["model"]: row["seconds"]["all"] for row in timed}
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        for predicted in row["judged"]:
            found[_named(row), predicted].append(row)
    numbers = ("AP", "AP50", "APs", "small AP", "car AP", "small car AP")
    titles = ["AP", "AP50", "AP small (COCO)", f"AP under {SMALL} pixels", "AP of cars", f"of cars under {SMALL}"]
    columns = ["trained", "predicted", "G multiply-adds a photo", "seconds a photo", *titles, "seeds"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for (name, predicted), runs in found.items():
        usual = WAYS[runs[0]["way"]].predicted == predicted
        gmacs = runs[0]["gmacs"][predicted.partition(",")[0]]
        cells = [name, predicted, f"{gmacs:.1f}", f"{seconds[name]:.3f}" if usual and name in seconds else ""]
        cells += [_mean([run["judged"][predicted][number] for run in runs]) for number in numbers]
        print("| " + " | ".join([*cells, str(len(runs))]) + " |")


def _mean(values: Sequence[float | None]) -> str:
    """With the least and the most, if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    ends = f" ({min(known):.3f} to {max(known):.3f})" if len(known) > 1 else ""
    return f"{statistics.mean(known):.3f}{ends}"


if __name__ == "__main__":
    main()
