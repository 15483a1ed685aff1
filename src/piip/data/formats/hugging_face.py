"""Hugging Face's image folders with objects: `metadata.jsonl` (or .csv) beside the images, a row for each.

    train/metadata.jsonl, train/*.jpg
    {"file_name": "1.jpg", "objects": {"bbox": [[x, y, width, height], ...], "categories": ["cat", ...]}}

Boxes are in pixels; polygons (`segmentation`), where there are any, count in their place. Numbers for categories get
the names that the data set's card (README.md) gives them, if it does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from piip.data.formats.records import Content, Format, FormatSplit, Records, Source, Split
from piip.data.formats.shapes import numbers
from piip.data.layout import NAMES, SplitName, child, split_called, split_folders
from piip.data.report import CheckReport, DataError
from piip.data.text_files import LARGEST_DESCRIPTION, beginning_of, read_rows, read_text, yaml_text
from piip.data.values import as_id, as_name

NAME = "Hugging Face image folder"
FILES = ("metadata.jsonl", "metadata.csv")
CATEGORY_KEYS = ("categories", "category", "category_id", "labels", "label", "class", "classes")
BOX_KEYS = ("bbox", "bboxes", "boxes")
OUTLINE_KEYS = ("segmentation", "segmentations", "polygons", "polygon")


def find(path: Path) -> dict[SplitName, Split]:
    """The splits of a folder with metadata of objects; empty where there is none."""
    if path.is_file():
        return {}
    found: dict[SplitName, Split] = {}
    for split in NAMES:
        for folder in split_folders(path, split):
            file = child(folder, FILES)
            if file is not None and _is_one(file):
                found.setdefault(split, _split(file, path, None))
    file = None if found else child(path, FILES)
    if file is None or not _is_one(file):
        return found
    folders = {split_called(_name(row).replace("\\", "/").split("/")[0]) for _, row in _rows(file)}
    if None in folders or not folders:
        return {"train": _split(file, path, None)}
    return {split: _split(file, path, split) for split in NAMES if split in folders}


def _is_one(file: Path) -> bool:
    text = beginning_of(file)
    return bool(re.search(r'"?"(bbox|bboxes|boxes|segmentations?|polygons?)"?"\s*:', text)) and "file_name" in text


def _split(file: Path, root: Path, part: SplitName | None) -> Split:
    return FormatSplit(file, file.parent, Format(NAME, partial(read, root=root, part=part)))


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        yield from read_rows(file)
    except DataError:
        return  # the reader says what is wrong


def _name(row: dict[str, Any]) -> str:
    return str(row.get("file_name") or "")


def read(file: Path, images: Source, report: CheckReport, root: Path, part: SplitName | None) -> Content:
    """The rows of this part (None: all) in COCO's form; `root` is the folder of the card."""
    assert isinstance(images, Path)
    names = card_names(root)
    records = Records(report, names)
    for line, row in read_rows(file):
        if part is not None and split_called(_name(row).replace("\\", "/").split("/")[0]) != part:
            continue
        if not _name(row):
            report.add("left out", "row without a file name", f"line {line}")
            continue
        image_id = records.image(_name(row), row.get("width"), row.get("height"))
        for place, (box, category, outline) in enumerate(_objects(row)):
            number = as_id(category)
            known = names and number is not None and 0 <= number < len(names) and not isinstance(category, str)
            name = names[number] if known and number is not None else as_name(category)
            if outline:
                _outlined(records, image_id, name, outline, place)
                continue
            corners = [*box[:2], *(_end(box, i) for i in (0, 1))] if isinstance(box, list) and len(box) == 4 else []
            records.box(image_id, name, corners)
    return records.content(images)


def _outlined(records: Records, image_id: int, name: str | None, outline: Any, place: int) -> None:
    """An object with polygons as COCO writes them (x, y, x, y, ...), one or a list of them; the box follows."""
    polygons = outline if isinstance(outline, list) and isinstance(outline[0], list) else [outline]
    for polygon in polygons:
        points = polygon if isinstance(polygon, list) else [None]
        sides = numbers(side for point in points for side in (point if isinstance(point, list) else [point]))
        if sides is None or len(sides) % 2:
            records.leave_out("polygon with something else than numbers", image_id, name)
        else:
            records.polygon(image_id, name, list(zip(sides[::2], sides[1::2], strict=True)), place)


def _end(box: list[Any], axis: int) -> Any:
    start, length = box[axis], box[axis + 2]
    numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (start, length))
    return start + length if numbers else None


def _objects(row: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Box, category and polygons of each object: of a mapping of lists, be it the row, or of a list of mappings."""
    kinds = (BOX_KEYS, CATEGORY_KEYS, OUTLINE_KEYS)
    parsed = {key: _parsed(value) for key, value in row.items()}
    for value in (parsed, *parsed.values()):
        if isinstance(value, dict):
            lists: list[list[Any]] = [
                next((value[key] for key in keys if isinstance(value.get(key), list)), []) for keys in kinds
            ]
            boxes, categories, outlines = lists
            count = len(boxes) or len(outlines)
            yield from islice(zip_longest(boxes, categories, outlines), count)
        elif isinstance(value, list):
            for one in value:
                if isinstance(one, dict) and any(key in one for key in (*BOX_KEYS, *OUTLINE_KEYS)):
                    box, category, outline = (next((one[key] for key in keys if key in one), None) for keys in kinds)
                    yield box, category, outline


def _parsed(value: Any) -> Any:
    """Tables hold JSON as text."""
    if isinstance(value, str) and value[:1] in "[{" and value:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def card_names(root: Path) -> list[str]:
    """The names of the classes that the card of a data set describes (`class_label`), in the order of their numbers."""
    card = child(root, ("README.md",))
    if card is None or not card.is_file():
        return []
    try:
        front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", read_text(card, LARGEST_DESCRIPTION), re.DOTALL)
        content = yaml_text(front[1], str(card)) if front else None
    except DataError:
        return []
    names = next(_class_labels(content), {})
    return [str(name) for _, name in sorted(names.items(), key=lambda pair: int(pair[0]))]


def _class_labels(content: Any) -> Iterator[dict[str, Any]]:
    """The names by their numbers of every class label in a card."""
    if isinstance(content, list):
        for value in content:
            yield from _class_labels(value)
    elif isinstance(content, dict):
        names = content["class_label"].get("names") if isinstance(content.get("class_label"), dict) else None
        if isinstance(names, dict) and {str(key) for key in names} == {str(number) for number in range(len(names))}:
            yield names
        for value in content.values():
            yield from _class_labels(value)
