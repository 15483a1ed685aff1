"""What was found as other programs read it, made from the lines of `predictions.jsonl` when all of them are there."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from piip import config
from piip.data.object_masks import crop_of_runs
from piip.files import atomic_write, json_text, numbered, refuse_taken
from piip.prediction.outlines import outline

Entry = dict[str, Any]
"""one line"""
COLUMNS = ("path", "label", "name", "score", "x1", "y1", "x2", "y2")


def check(formats: Sequence[str], described: config.Model, folder: Path, remedy: str | None) -> None:
    """Refuse what cannot be written; where there is a `remedy`, also names in `folder` that are taken.

    Raises:
        ValueError: an unknown format, a model that finds no objects, or a name that is taken.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format {name!r}: use {', '.join(FORMATS)}")
    if formats and described.task != "detection":
        raise ValueError(f"format {', '.join(formats)}: only for detection; this model is for {described.task}")
    if remedy is not None:
        refuse_taken((folder / FORMATS[name][0] for name in formats), remedy)


def write(formats: Sequence[str], described: config.Model, folder: Path) -> None:
    """Write the files of these formats into `folder`, which holds `predictions.jsonl`."""
    for name in formats:
        place, maker = FORMATS[name]
        maker(folder / "predictions.jsonl", folder / place, described)


def _entries(lines: Path) -> Iterator[Entry]:
    with lines.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _csv(lines: Path, place: Path, described: config.Model) -> None:
    """A row for each object."""
    with atomic_write(place) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for entry in _entries(lines):
            path = (entry["path"] or "").encode("utf-8", "backslashreplace").decode()
            table.writerows((path, o["label"], o["name"], o["score"], *o["box"]) for o in entry["objects"])


def _yolo(lines: Path, place: Path, described: config.Model, polygons: bool = False) -> None:
    """A file for each image, of its picture's name, with a line for each object; and the names of the classes."""
    (place / "labels").mkdir(parents=True, exist_ok=True)
    stems = [Path(entry.get("picture") or entry["path"] or "image").stem for entry in _entries(lines)]
    for entry, name in zip(_entries(lines), numbered(f"{stem}.txt" for stem in stems), strict=True):
        row = _yolo_polygon if polygons else _yolo_row
        rows = "".join(row(found, entry["width"], entry["height"]) for found in entry["objects"])
        with atomic_write(place / "labels" / name) as temporary:
            temporary.write_text(rows)
    names = "".join(f"  {label}: {json_text(name)}\n" for label, name in enumerate(described.classes))
    with atomic_write(place / "data.yaml") as temporary:
        temporary.write_text(f"names:\n{names}", encoding="utf-8")


def _yolo_row(found: Entry, width: int, height: int) -> str:
    x1, y1, x2, y2 = found["box"]
    sides = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return f"{found['label']} {' '.join(f'{side:.6g}' for side in sides)}\n"


def _yolo_polygon(found: Entry, width: int, height: int) -> str:
    sides = (width, height)
    points = (f"{corner / sides[number % 2]:.6g}" for number, corner in enumerate(_polygon(found)))
    return f"{found['label']} {' '.join(points)}\n"


def _polygon(found: Entry) -> list[float]:
    """x, y, x, y, ... of the largest outline of an object's mask, or of its box where there is none."""
    if "segmentation" in found:
        height, width = found["segmentation"]["size"]
        runs = np.array(found["segmentation"]["counts"], dtype=np.int32)
        points = outline(crop_of_runs(runs, (height, width)))
        if len(points):
            return [float(side) for side in points.ravel()]
    x1, y1, x2, y2 = found["box"]
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def _coco(lines: Path, place: Path, described: config.Model, polygons: bool = False) -> None:
    """A data set: images, annotations with scores, categories."""
    ids = described.category_ids or tuple(range(1, len(described.classes) + 1))
    categories = [{"id": number, "name": name} for number, name in zip(ids, described.classes, strict=True)]
    with atomic_write(place) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"categories": {json_text(categories)},\n"images": [')
        for number, entry in enumerate(_entries(lines)):
            image = {"id": entry["id"], "file_name": entry["path"] or f"{entry['id']}"}
            image |= {side: entry[side] for side in ("width", "height")}
            file.write(("," if number else "") + "\n" + json_text(image))
        file.write('],\n"annotations": [')
        found = ((entry["id"], o) for entry in _entries(lines) for o in entry["objects"])
        for number, (image_id, o) in enumerate(found, 1):
            x1, y1, x2, y2 = o["box"]
            row = {"id": number, "image_id": image_id, "category_id": ids[o["label"]], "score": o["score"]}
            row |= {"bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)], "iscrowd": 0}
            row |= {"area": _area(o), "segmentation": [_polygon(o)] if polygons else o.get("segmentation", [])}
            file.write(("," if number > 1 else "") + "\n" + json_text(row))
        file.write("]}\n")


def _area(found: Entry) -> float:
    """Of the mask in pixels, or of the box."""
    if "segmentation" in found:
        return float(sum(found["segmentation"]["counts"][1::2]))
    x1, y1, x2, y2 = found["box"]
    return round((x2 - x1) * (y2 - y1), 2)


FORMATS: dict[str, tuple[str, Callable[[Path, Path, config.Model], None]]] = {
    "csv": ("objects.csv", _csv),
    "yolo": ("yolo", _yolo),
    "coco": ("coco_dataset.json", _coco),
    "yolo-polygons": ("yolo_polygons", partial(_yolo, polygons=True)),
    "coco-polygons": ("coco_polygons.json", partial(_coco, polygons=True)),
}
"""format -> its file or folder, and what makes it"""
