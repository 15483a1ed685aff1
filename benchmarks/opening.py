"""What it costs to open a large data set for training: CPU seconds and memory to the first batch.

    python benchmarks/opening.py [--task detection] [--images 100000] [--workers 2] [--start fork] [--folder FOLDER]

Makes so many small images in FOLDER (kept) or in a temporary one, with a COCO file of eight outlined objects of 29
points in each, with a mask for each, or in the folders of 100 classes. In a process of its own it opens the training
split, makes the training set and the record of it that a checkpoint holds, and reads a batch with worker processes.
Linux only: memory is the proportional share (PSS) of that process and its workers, so that what they share counts once.
Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

OBJECTS, POINTS = 8, 29
"""of an image, of an outline"""
WIDTH, HEIGHT = 64, 48
CLASSES = 100
"""of a classifier's data"""
LINKS = 30_000
"""names of one file: file systems have a limit"""


def make_files(paths: Iterable[Path], mode: str = "RGB") -> None:
    from PIL import Image

    for number, path in enumerate(paths):
        if number % LINKS == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (WIDTH, HEIGHT)).save(path)
            first = path
        else:
            path.parent.mkdir(exist_ok=True)
            os.link(first, path)


def make_masks(folder: Path, images: int) -> None:
    make_files(folder / "images" / "train" / f"{number:012d}.jpg" for number in range(images))
    make_files((folder / "masks" / "train" / f"{number:012d}.png" for number in range(images)), "L")
    (folder / "classes.json").write_text('{"classes": ["a", "b"], "ignore_index": 255}')


def make_classes(folder: Path, images: int) -> None:
    make_files(folder / "train" / f"class {number % CLASSES:02d}" / f"{number:012d}.jpg" for number in range(images))


def make(folder: Path, images: int) -> None:
    paths = [folder / "train" / f"{number:012d}.jpg" for number in range(images)]
    make_files(paths)
    (folder / "annotations").mkdir()
    draw = random.Random(0)  # noqa: S311
    with (folder / "annotations" / "train.json").open("w") as file:
        file.write('{"categories":[{"id":1,"name":"a"},{"id":2,"name":"b"}],"images":[')
        for number, path in enumerate(paths):
            record = {"id": number + 1, "file_name": path.name, "width": WIDTH, "height": HEIGHT, "license": 3,
                      "date_captured": "2013-11-14 17:02:52"}  # fmt: skip
            file.write(("," if number else "") + json.dumps(record))
        file.write('],"annotations":[')
        for number in range(OBJECTS * images):
            # as in COCO's files, the objects of an image are not together
            record = annotation(number + 1, number * 7919 % images + 1, draw)
            file.write(("," if number else "") + json.dumps(record))
        file.write("]}")


def annotation(number: int, image: int, draw: random.Random) -> dict[str, Any]:
    x, y, radius = draw.uniform(15, 45), draw.uniform(15, 30), draw.uniform(4, 13)
    angles = [2 * math.pi * point / POINTS for point in range(POINTS)]
    xs = [round(x + radius * math.cos(angle), 2) for angle in angles]
    ys = [round(y + radius * math.sin(angle), 2) for angle in angles]
    outline = [side for point in zip(xs, ys, strict=True) for side in point]
    box = [min(xs), min(ys), round(max(xs) - min(xs), 2), round(max(ys) - min(ys), 2)]
    return {"id": number, "image_id": image, "category_id": number % 2 + 1, "iscrowd": 0,
            "area": round(3 * radius**2, 3), "bbox": box, "segmentation": [outline]}  # fmt: skip


MAKE = {"detection": make, "segmentation": make_masks, "classification": make_classes}
MODELS = {
    "detection": "piip_nano_mask_rcnn",
    "segmentation": "piip_nano_upernet",
    "classification": "piip_nano_classifier",
}


def share(process: int) -> float:
    """MB of memory that count for a process."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, workers: int, kind: str) -> None:
    from multiprocessing.reduction import ForkingPickler

    from piip import tasks, zoo
    from piip.data.batches import train_loader
    from piip.data.shared_file import to_this_machine
    from piip.training.data_record import record_of
    from piip.training.start import build_settings

    me = os.getpid()
    entry = zoo.entry(MODELS[kind])
    task = tasks.of(entry.config())
    found = {"imports": {"cpu_s": cpu_seconds(me), "mb": share(me)}}
    data = task.open_split(folder, "train")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024 / 1e3
    found["opened"] = {"cpu_s": cpu_seconds(me), "mb": share(me), "peak_mb": peak}
    model = task.adapted(entry.config(), data)
    settings = build_settings(dict(task.defaults(entry.config())) | entry.recipe, {})
    dataset = task.training_set(model, data, settings.augmentation, seed=0)
    record_of(dataset)
    batches = iter(train_loader(dataset, 2, seed=0, epoch=0, workers=workers))
    next(batches)
    beside = [child.pid for child in multiprocessing.active_children() if child.pid]
    everyone = [me, *beside]
    found["first_batch"] = {
        "cpu_s": sum(map(cpu_seconds, everyone)),
        "mb": sum(map(share, everyone)),
        "mb_of_each_worker": max(map(share, beside), default=0.0),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024 / 1e3
    found["first_batch"]["peak_mb"] = peak
    begun = time.process_time()
    for position in range(0, len(data.images), len(data.images) // 1000):
        image = data.images[position]
        list(image.objects if kind == "detection" else image)
    took = (time.process_time() - begun) / len(range(0, len(data.images), len(data.images) // 1000))
    with to_this_machine():
        size = len(ForkingPickler.dumps(dataset))
    print(json.dumps({stage: {name: round(value, 1) for name, value in values.items()}
                      for stage, values in found.items()}
                     | {"pickled_kb": round(size / 1e3, 1), "access_ms": round(1e3 * took, 3)}, indent=1))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=MAKE, default="detection")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start", choices=("fork", "forkserver", "spawn"), help="of workers; default: Python's own")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.measure:
        multiprocessing.set_start_method(told.start)
        measure(told.folder, told.workers, told.task)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = told.folder or Path(temporary) / "data"
        if not folder.exists():
            MAKE[told.task](folder, told.images)
        command = [
            sys.executable,
            __file__,
            "--measure",
            "--folder",
            folder,
            "--workers",
            str(told.workers),
            "--task",
            told.task,
        ]
        subprocess.run([*command, "--start", told.start or multiprocessing.get_start_method()], check=True)


if __name__ == "__main__":
    main()
