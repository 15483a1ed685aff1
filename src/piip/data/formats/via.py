"""VGG Image Annotator (VIA 1 and 2): regions of all images in one .json or .csv file.

    train/via_region_data.json, train/*.jpg

Rectangles, polygons, circles and ellipses are read. The class is the region's attribute that is called like one
(`label`, `class`, `name`, ...), else its only one.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from piip.data.formats.records import Content, Format, FormatSplit, Records, Source, Split
from piip.data.formats.shapes import ellipse, numbers
from piip.data.layout import IMAGE_FOLDERS, NAMES, SplitName, child_folder, is_hidden, split_folders, split_of
from piip.data.report import CheckReport, DataError
from piip.data.text_files import beginning_of, read_json, read_table, table_titles
from piip.data.values import as_name

NAME = "VIA"
CLASS_KEYS = ("label", "class", "class_name", "name", "category", "type", "object")
COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


def find(path: Path) -> dict[SplitName, Split]:
    """The splits of VIA files, a folder or one file; empty where there are none."""
    if path.is_file():
        return {split_of(path.stem) or "train": _split(path, path.parent)} if _is_one(path) else {}
    found: dict[SplitName, Split] = {}
    for split in NAMES:
        for folder in split_folders(path, split):
            files = _files(folder)
            if len(files) == 1:
                found.setdefault(split, _split(files[0], folder))
    files = [] if found else _files(path)
    if len(files) == 1:
        return {split_of(files[0].stem) or "train": _split(files[0], path)}
    named = {split_of(file.stem): file for file in files}
    return found or {split: _split(named[split], path) for split in NAMES if split in named}


def _files(folder: Path) -> list[Path]:
    files = (file for file in sorted(folder.iterdir()) if file.suffix.lower() in (".json", ".csv"))
    return [file for file in [file for file in files if not is_hidden(file.name)][:20] if _is_one(file)]


def _is_one(file: Path) -> bool:
    if file.suffix.lower() == ".csv":
        return set(COLUMNS) <= {title.lstrip("#") for title in table_titles(file)}
    text = beginning_of(file)
    regions = re.search(r'"_via_img_metadata"\s*:|"regions"\s*:\s*[\[{]', text)
    return file.suffix.lower() == ".json" and text.lstrip().startswith("{") and bool(regions)


def _split(file: Path, folder: Path) -> Split:
    return FormatSplit(file, child_folder(folder, IMAGE_FOLDERS) or folder, Format(NAME, partial(read)))


def read(file: Path, images: Source, report: CheckReport) -> Content:
    """All images in COCO's form."""
    assert isinstance(images, Path)
    records = Records(report)
    pictures = _of_table(file, report) if file.suffix.lower() == ".csv" else _of_json(file)
    for name, regions in pictures.items():
        image_id = records.image(name)
        for shape, attributes in regions:
            _draw(shape, _class_of(attributes), image_id, records)
    return records.content(images)


Regions = list[tuple[dict[str, Any], dict[str, Any]]]
"""shape and attributes of each"""


def _of_json(file: Path) -> dict[str, Regions]:
    content = read_json(file)
    if isinstance(content, dict) and isinstance(content.get("_via_img_metadata"), dict):
        content = content["_via_img_metadata"]
    entries = content.values() if isinstance(content, dict) else []
    found: dict[str, Regions] = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("filename"), str):
            found.setdefault(entry["filename"], []).extend(_regions(entry))  # one of two sizes is there twice
    if not found:
        raise DataError(f"{file}: lists no images")
    return found


def _regions(entry: dict[str, Any]) -> Regions:
    """Of one image, a list, or numbered as VIA 1 writes them."""
    given = entry.get("regions")
    given = list(given.values()) if isinstance(given, dict) else given
    return [_region(region) for region in given if isinstance(region, dict)] if isinstance(given, list) else []


def _region(region: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    shape, attributes = region.get("shape_attributes"), region.get("region_attributes")
    return shape if isinstance(shape, dict) else {}, attributes if isinstance(attributes, dict) else {}


def _of_table(file: Path, report: CheckReport) -> dict[str, Regions]:
    titles, rows = read_table(file)
    places = {title.lstrip("#"): place for place, title in enumerate(titles)}
    found: dict[str, Regions] = defaultdict(list)
    for line, cells in rows:
        filled = cells + [""] * (len(titles) - len(cells))
        name, shape, attributes = (filled[places[column]] for column in COLUMNS)
        regions = found[name]
        try:
            parsed = {"shape_attributes": json.loads(shape), "region_attributes": json.loads(attributes or "{}")}
        except (ValueError, RecursionError):
            report.add("left out", "region that cannot be read", f"line {line}: {shape!r:.60}")
            continue
        if parsed["shape_attributes"]:
            regions.append(_region(parsed))
    return dict(found)


def _class_of(attributes: dict[str, Any]) -> Any:
    """A text, or of choices {name: true} the one that was made."""
    keys = [key for name in CLASS_KEYS for key in attributes if key.casefold() == name]
    value = attributes[keys[0]] if keys else next(iter(attributes.values()), None) if len(attributes) == 1 else None
    if isinstance(value, dict):
        chosen = [name for name, made in value.items() if made]
        return chosen[0] if len(chosen) == 1 else None
    return value


def _draw(shape: dict[str, Any], name: Any, image_id: int, records: Records) -> None:
    kind = as_name(shape.get("name"))
    keys = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
    if kind in ("polygon", "polyline") and isinstance(shape.get("all_points_x"), list):
        down = shape.get("all_points_y")
        xs, ys = numbers(shape["all_points_x"]), numbers(down) if isinstance(down, list) else None
        if kind == "polyline" and (xs is None or len(xs) < 3):
            records.leave_out("region that is no rectangle, polygon, circle or ellipse", image_id, kind)
        elif xs is None or ys is None or len(xs) != len(ys):
            records.leave_out("region with something else than numbers", image_id, name)
        else:
            records.polygon(image_id, name, list(zip(xs, ys, strict=True)))
    elif kind in keys:
        sides = numbers(shape.get(key) for key in keys[kind])
        if sides is None:
            records.leave_out("region with something else than numbers", image_id, name)
        elif kind == "rect":
            x, y, w, h = sides
            records.box(image_id, name, (x, y, x + w, y + h))
        elif kind == "circle":
            records.polygon(image_id, name, ellipse(sides[0], sides[1], sides[2], sides[2]))
        else:
            turn = numbers([shape.get("theta") or 0]) or [0.0]
            records.polygon(image_id, name, ellipse(sides[0], sides[1], sides[2], sides[3], math.degrees(turn[0])))
    else:
        records.leave_out("region that is no rectangle, polygon, circle or ellipse", image_id, kind)
