"""CVAT for images 1.1: one `annotations.xml` with boxes, polygons, ellipses and masks of all images.

    annotations.xml, images/*.jpg

Labels are in the order of the file's own list. Images may name their `subset`. Polygons of one group and label on one
image are parts of one object, as in CVAT's own COCO export. Points, lines, cuboids and skeletons are left out. Files
with tracks in place of images are read by `cvat_video`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from piip.data.formats.cvat_video import read_tracks
from piip.data.formats.records import Content, Format, FormatSplit, Records, Source, Split
from piip.data.formats.shapes import bounds, ellipse, numbers, rotated_box
from piip.data.image_files import MAX_PIXELS
from piip.data.layout import (
    IMAGE_FOLDERS,
    NAMES,
    SplitName,
    child,
    child_folder,
    is_hidden,
    split_called,
    split_folders,
    split_of,
)
from piip.data.report import CheckReport, DataError
from piip.data.run_lengths import RunLengthError, encode_part
from piip.data.xml_files import Element, children_of_root, root_tag

NAME = "CVAT for images"
VIDEO = "CVAT for video"
FILE = "annotations.xml"
ROOT = "annotations"


def find(path: Path) -> dict[SplitName, Split]:
    """The splits of a CVAT export, a folder or the .xml file itself; empty where it is none."""
    if path.is_file():
        return _subsets(path, path.parent) if _is_one(path) else {}
    found: dict[SplitName, Split] = {}
    for split in NAMES:
        for folder in split_folders(path, split):
            file = _file_in(folder)
            if file is not None:
                found.setdefault(split, _split(file, folder, None))
    file = None if found else _file_in(path)
    return found if file is None else _subsets(file, path)


def _is_one(file: Path) -> bool:
    return file.suffix.lower() == ".xml" and root_tag(file) == ROOT


def _file_in(folder: Path) -> Path | None:
    usual = child(folder, (FILE,))
    if usual is not None and _is_one(usual):
        return usual
    files = [file for file in folder.iterdir() if file.suffix.lower() == ".xml" and not is_hidden(file.name)]
    return files[0] if len(files) == 1 and _is_one(files[0]) else None


def _subsets(file: Path, root: Path) -> dict[SplitName, Split]:
    """By what images say of their subset; all are one split where they say nothing that is known."""
    try:
        written = [element.attributes.get("subset", "") for element in children_of_root(file) if element.tag == "image"]
    except DataError:
        written = []  # the reader says what is wrong
    subsets = {name: split_of(name) for name in dict.fromkeys(written)}
    if not all(subsets.values()) or not subsets:
        return {split_of(file.stem) or split_called(root.resolve().name) or "train": _split(file, root, None)}
    return {
        split: _split(file, root, frozenset(name for name, meant in subsets.items() if meant == split))
        for split in NAMES
        if split in subsets.values()
    }


def _split(file: Path, root: Path, subsets: frozenset[str] | None) -> Split:
    images = child_folder(root, IMAGE_FOLDERS) or root
    return FormatSplit(file, images, Format(NAME, partial(read, subsets=subsets)))


def read(file: Path, images: Source, report: CheckReport, subsets: Iterable[str] | None = None) -> Content:
    """The images of these subsets (None: of all) in COCO's form."""
    assert isinstance(images, Path)
    records = Records(report)
    tracks, meta = list[Element](), None
    for element in children_of_root(file):
        if element.tag == "meta":
            records.declared |= dict.fromkeys(_labels(element))
            meta = _owner(element)
        elif element.tag == "image" and (subsets is None or element.attributes.get("subset", "") in subsets):
            _image(element, records)
        elif element.tag == "track":
            tracks.append(element)
    if tracks and not records.images:
        report.format = VIDEO
        read_tracks(file, images, meta, tracks, records, SHAPES)
    if not records.images:
        raise DataError(f"{file}: lists no images")
    return records.content(images)


def _owner(meta: Element) -> Element | None:
    """What was exported: the project, task or job."""
    owners = (meta.first(owner) for owner in ("project", "task", "job"))
    return next((owner for owner in owners if owner is not None and owner.first("labels") is not None), None)


def _labels(meta: Element) -> list[str]:
    """Names in the order of what was exported; those that are parts of a skeleton are not for objects."""
    owner = _owner(meta)
    listed = None if owner is None else owner.first("labels")
    labels = [] if listed is None else listed.all("label")
    names = (label.value("name") for label in labels if label.first("parent") is None)
    return [name for name in names if name]


def _image(element: Element, records: Records) -> None:
    given = element.attributes
    image_id = records.image(given.get("name", ""), given.get("width"), given.get("height"))
    for shape in element.children:
        draw = SHAPES.get(shape.tag)
        if draw is not None:
            draw(shape.attributes, image_id, records)
        elif shape.tag != "tag":
            records.leave_out("shape that is no box, polygon, ellipse or mask", image_id,
                              f"{shape.tag} {shape.attributes.get('label')}")  # fmt: skip
        else:
            records.report.add("note", "tag of a whole image (not used)", f"{given.get('name')}: "
                               f"{shape.attributes.get('label')}")  # fmt: skip


def _box(shape: dict[str, str], image_id: int, records: Records) -> None:
    written: list[Any] = [shape.get(side) for side in ("xtl", "ytl", "xbr", "ybr")]
    sides, turn = numbers(written), numbers([shape.get("rotation", "0")])
    if sides is not None and turn is not None and turn[0]:
        x1, y1, x2, y2 = sides
        written = list(bounds(rotated_box((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, turn[0])))
        records.report.add("note", "rotated box (the upright one around it is used)",
                           records.images[image_id - 1]["file_name"])  # fmt: skip
    records.box(image_id, shape.get("label"), written)


def _polygon(shape: dict[str, str], image_id: int, records: Records) -> None:
    sides = numbers(side for point in shape.get("points", "").split(";") for side in point.split(","))
    if sides is None or len(sides) % 2:
        records.leave_out("polygon with something else than numbers", image_id, shape.get("label"))
        return
    group = shape.get("group_id", "0")
    points = list(zip(sides[::2], sides[1::2], strict=True))
    records.polygon(image_id, shape.get("label"), points, None if group == "0" else group)


def _ellipse(shape: dict[str, str], image_id: int, records: Records) -> None:
    given = numbers(shape.get(name) for name in ("cx", "cy", "rx", "ry"))
    turn = numbers([shape.get("rotation", "0")])
    if given is None or turn is None:
        records.leave_out("ellipse with something else than numbers", image_id, shape.get("label"))
        return
    cx, cy, rx, ry = given
    records.polygon(image_id, shape.get("label"), ellipse(cx, cy, rx, ry, turn[0]))


def _mask(shape: dict[str, str], image_id: int, records: Records) -> None:
    place = numbers(shape.get(name) for name in ("left", "top", "width", "height"))
    record = records.images[image_id - 1]
    try:
        if place is None or "width" not in record:
            raise RunLengthError("mask without a place")
        left, top, width, height = (int(side) for side in place)
        part = _pixels(shape.get("rle", ""), width, height)
        mask, box = encode_part(part, left, top, (int(record["height"]), int(record["width"])))
    except RunLengthError as error:
        records.leave_out(str(error), image_id, shape.get("label"))
        return
    records.runs(image_id, shape.get("label"), mask, box)


def _pixels(text: str, width: int, height: int) -> np.ndarray:
    """The part [height, width] of a mask: runs of 0, 1, 0, ... along the rows."""
    try:
        runs = np.array([int(run) for run in text.split(",")])
    except (ValueError, OverflowError) as error:
        raise RunLengthError("run lengths that are no integers") from error
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise RunLengthError("mask of no size")
    if (runs < 0).any() or sum(runs.tolist()) != width * height:  # Python's sum: NumPy's begins anew beyond 2**63
        raise RunLengthError("run lengths that do not add up to the mask")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)


SHAPES: dict[str, Callable[[dict[str, str], int, Records], None]] = {
    "box": _box,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "mask": _mask,
}
"""elements that become objects"""
