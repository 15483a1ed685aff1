"""Label Studio's JSON and JSON-MIN exports: one file for all images, places in percent of the image's sides.

    export.json, images/*.jpg

Rectangles, polygons, ellipses and brush masks are read; key points and choices of a whole image are left out. Images
are found by the ends of their addresses, with or without the eight letters that an upload puts in front. Of a task with
several annotations the first counts, as elsewhere the last edit; predictions and cancelled ones never do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from piip.data.find_image import ImageFinder
from piip.data.formats.brush import brush_mask
from piip.data.formats.records import Content, Format, FormatSplit, Records, Source, Split
from piip.data.formats.shapes import bounds, ellipse, numbers, pairs, turned
from piip.data.image_files import MAX_PIXELS, SUFFIXES, ImageError
from piip.data.layout import IMAGE_FOLDERS, NAMES, SplitName, child, child_folder, is_hidden, split_folders, split_of
from piip.data.report import CheckReport, DataError
from piip.data.run_lengths import RunLengthError, encode_part
from piip.data.text_files import beginning_of, read_json
from piip.data.values import as_name

NAME = "Label Studio"


class Region(NamedTuple):
    """One shape of a task."""

    kind: str
    value: dict[str, Any]
    label: str | None
    size: tuple[Any, Any]
    """(width, height) of the image that it was drawn on"""


def find(path: Path) -> dict[SplitName, Split]:
    """The splits of an export, a folder or the .json file itself; empty where it is none."""
    if path.is_file():
        return {split_of(path.stem) or "train": _split(path, path.parent)} if _is_one(path) else {}
    found: dict[SplitName, Split] = {}
    for split, names in NAMES.items():
        folders = [*split_folders(path, split)]
        places = [(child(path, [f"{name}.json" for name in names]), path), *((_only(f), f) for f in folders)]
        file = next(((file, folder) for file, folder in places if file is not None and _is_one(file)), None)
        if file is not None:
            found[split] = _split(*file)
    only = None if found else _only(path)
    return found if only is None else {"train": _split(only, path)}


def _only(folder: Path) -> Path | None:
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".json" and not is_hidden(file.name)]
    exports = [file for file in files[:20] if _is_one(file)]
    return exports[0] if len(exports) == 1 else None


def _split(file: Path, folder: Path) -> Split:
    return FormatSplit(file, folder, Format(NAME, partial(read)))


def _is_one(file: Path) -> bool:
    """Whether a file is a list of tasks with results, by its beginning."""
    text = beginning_of(file)
    found = re.search(r'"original_width"\s*:|"result"\s*:\s*\[|"[a-z]+labels"\s*:\s*\[', text)
    return file.suffix.lower() == ".json" and text.lstrip().startswith("[") and bool(found)


def read(file: Path, images: Source, report: CheckReport) -> Content:
    """All tasks in COCO's form."""
    assert isinstance(images, Path)
    tasks = read_json(file)
    if not isinstance(tasks, list) or not tasks:
        raise DataError(f"{file}: lists no tasks; export as JSON or JSON-MIN")
    records = Records(report)
    inside = (child_folder(images, (name,)) for name in IMAGE_FOLDERS)
    finder = ImageFinder(images, *(folder for folder in inside if folder is not None))
    for position, task in enumerate(tasks):
        if not isinstance(task, dict):
            report.add("left out", "task that is not an object", f"record {position}")
            continue
        regions = _regions(task, report)
        if regions is None:
            report.add("left out", "task without an annotation", f"task {task.get('id', position)}")
            continue
        sizes = [region.size for region in regions if numbers(region.size) is not None]
        image_id = records.image(_image_name(task, finder, images), *(sizes[0] if sizes else (None, None)))
        for region in regions:
            _draw(region, image_id, records)
    return records.content(images)


def _regions(task: dict[str, Any], report: CheckReport) -> list[Region] | None:
    """The shapes of the annotation that counts; None for a task that nobody has looked at."""
    where = f"task {task.get('id')}"
    annotations = task.get("annotations", task.get("completions"))
    if annotations is None:  # JSON-MIN: the results stand among the data, those of a kind together
        lists = [value for value in task.values() if isinstance(value, list)]
        parts = [value for values in lists for value in values if isinstance(value, dict)]
        return [Region(_kind_of(value), value, _label(value), _size(value)) for value in parts]
    given = [one for one in annotations if isinstance(one, dict)] if isinstance(annotations, list) else []
    good = [one for one in given if not one.get("was_cancelled") and isinstance(one.get("result"), list)]
    if len(good) > 1:
        report.add("note", "task with several annotations (the first is used)", where)
    return list(_results(good[0]["result"])) if good else None


def _results(results: list[Any]) -> Iterator[Region]:
    """Shapes with their labels, which are with them or in a result of their own with the same id."""
    known = [one for one in results if isinstance(one, dict) and isinstance(one.get("value"), dict)]
    apart = {as_name(one.get("id")): _label(one["value"]) for one in known if one.get("type") == "labels"}
    for one in known:
        kind = str(one.get("type"))
        if kind not in ("labels", "relation"):
            label = _label(one["value"]) or apart.get(as_name(one.get("id")))
            yield Region(kind.removesuffix("labels"), one["value"], label, _size(one))


def _kind_of(value: dict[str, Any]) -> str:
    key = next((key for key in value if key.endswith("labels") and key != "labels"), "")
    return key.removesuffix("labels")


def _label(value: dict[str, Any]) -> str | None:
    """The first label; texts are names as they are written."""
    lists = (names for key, names in value.items() if key.endswith("labels") and isinstance(names, list))
    return next((str(names[0]) for names in lists if names), None)


def _size(result: dict[str, Any]) -> tuple[Any, Any]:
    return result.get("original_width"), result.get("original_height")


def _image_name(task: dict[str, Any], finder: ImageFinder, images: Path) -> str:
    """The image of a task as it is called here, else as the file writes it."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    assert isinstance(data, dict)
    texts = [value for value in [*data.values(), task.get("file_upload")] if isinstance(value, str)]
    named = [name for text in texts for name in _names(text) if name.lower().endswith(SUFFIXES)]
    for name in named:
        try:
            return finder(name).relative_to(images).as_posix()
        except ImageError:
            continue
    return named[0] if named else next(iter(texts), "")


def _names(address: str) -> list[str]:
    """What the file at an address may be called here; none for what is no address."""
    address = address.replace("\\", "/")
    try:
        parts = urlsplit(address)
    except ValueError:  # "http://[1"
        return []
    path = parse_qs(parts.query).get("d", [unquote(parts.path)])[0]
    plain = re.sub(r"^[0-9a-f]{8}-", "", path.rsplit("/", 1)[-1])
    written = () if parts.scheme else (address,)  # a path, in which "#", "?" and "%" are letters like others
    return list(dict.fromkeys((path, plain, *written)))


def _draw(region: Region, image_id: int, records: Records) -> None:
    size = numbers(region.size)
    given = region.value
    if region.kind not in ("rectangle", "polygon", "ellipse", "brush"):
        records.leave_out("result that is no rectangle, polygon, ellipse or brush mask", image_id, region.kind)
    elif size is None or min(size) < 1:
        records.leave_out("shape without the size of its image", image_id, region.label)
    elif region.kind == "brush":
        _brush(region, (int(size[0]), int(size[1])), image_id, records)
    elif region.kind == "polygon":
        points = pairs(given.get("points"))
        if points is None:
            records.leave_out("shape with something else than numbers", image_id, region.label)
        else:
            scaled = [(x * size[0] / 100, y * size[1] / 100) for x, y in points]
            records.polygon(image_id, region.label, scaled)
    else:
        _placed(region, size, image_id, records)


def _placed(region: Region, size: list[float], image_id: int, records: Records) -> None:
    """A rectangle or an ellipse: place and sides in percent, turned about the corner or the centre."""
    keys = ("x", "y", "width", "height") if region.kind == "rectangle" else ("x", "y", "radiusX", "radiusY")
    found, turn = numbers(region.value.get(key) for key in keys), numbers([region.value.get("rotation") or 0])
    if found is None or turn is None:
        records.leave_out("shape with something else than numbers", image_id, region.label)
        return
    x, y, w, h = (side * whole / 100 for side, whole in zip(found, (*size, *size), strict=True))
    if region.kind == "ellipse":
        records.polygon(image_id, region.label, ellipse(x, y, w, h, turn[0]))
        return
    corners = (x, y, x + w, y + h)
    if turn[0]:
        corners = bounds(turned([(0, 0), (w, 0), (w, h), (0, h)], x, y, turn[0]))
        records.report.add("note", "rotated box (the upright one around it is used)",
                           records.images[image_id - 1]["file_name"])  # fmt: skip
    records.box(image_id, region.label, corners)


def _brush(region: Region, size: tuple[int, int], image_id: int, records: Records) -> None:
    width, height = size
    try:
        if width * height > MAX_PIXELS:
            raise RunLengthError("brush mask of an image that is too large")
        painted = brush_mask(region.value.get("rle"), height, width)
        mask, box = encode_part(np.asarray(painted), 0, 0, (height, width))
    except RunLengthError as error:
        records.leave_out(str(error), image_id, region.label)
        return
    records.runs(image_id, region.label, mask, box)
