"""LabelMe (and AnyLabeling): a .json file of shapes for every image, beside it or in a folder of its own.

    train/1.jpg, train/1.json

Polygons, rectangles, circles and masks are read; shapes of one label and `group_id` on one image are parts of one
object. Points and lines are left out.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from piip.data.decode import decode_image
from piip.data.find_image import ImageFinder
from piip.data.formats.places import Kind, find_places
from piip.data.formats.records import Content, Format, FormatSplit, Points, Records, Source, Split
from piip.data.formats.shapes import bounds, ellipse, pairs
from piip.data.image_files import ImageError
from piip.data.layout import SplitName
from piip.data.report import CheckReport, DataError
from piip.data.run_lengths import RunLengthError, encode_part
from piip.data.text_files import LARGEST, beginning_of, read_json

NAME = "LabelMe"
KEPT = ("imagePath", "imageWidth", "imageHeight")
"""what is read of a file beside its shapes"""


def _is_one(file: Path) -> bool:
    text = beginning_of(file)
    return text.lstrip().startswith("{") and bool(re.search(r'"shapes"\s*:\s*\[', text)) and '"images"' not in text


KIND = Kind(("annotations", "labels", "json", "jsons", "labelme"), ".json", _is_one)


def find(root: Path) -> dict[SplitName, Split]:
    """The splits of a folder of LabelMe files; empty where there are none."""
    found = find_places(root, KIND)
    every = tuple(place.labels for place in found.values())
    return {
        split: FormatSplit(place.labels, place.images, Format(NAME, partial(read, every=every)))
        for split, place in found.items()
    }


def read(labels: Path, images: Source, report: CheckReport, every: Iterable[Path]) -> Content:
    """One split in COCO's form; `every` are the folders of all splits, whose classes are one list."""
    assert isinstance(images, Path)
    read_files = {file: _read(file, report) for file in KIND.files(labels)}
    contents = {file: content for file, content in read_files.items() if content is not None}
    others = (_read(file, None) for folder in every if folder != labels for file in KIND.files(folder))
    names = {str(shape["label"]).strip() for content in [*contents.values(), *filter(None, others)]
             for shape in content["shapes"] if isinstance(shape.get("label"), str)}  # fmt: skip
    records = Records(report, sorted(name for name in names if name))
    finder = ImageFinder(*dict.fromkeys((images, labels)))
    for file, content in contents.items():
        name = _image_name(file, labels, content, finder, images)
        image_id = records.image(name, content.get("imageWidth"), content.get("imageHeight"))
        for shape in content["shapes"]:
            _shape(shape, image_id, records)
    return records.content(images)


def _read(file: Path, report: CheckReport | None) -> dict[str, Any] | None:
    """What a file says; None for what is none of LabelMe's, which goes to `report` if it cannot be read."""
    try:
        content = read_json(file, LARGEST)
    except DataError as error:
        if report is not None:
            report.add("left out", "annotation file that cannot be read", str(error))
        return None
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        if report is not None:
            report.add("note", "file that is no LabelMe annotation", file.name)
        return None
    kept = {key: content.get(key) for key in KEPT}  # the image itself may be in the file, too
    return kept | {"shapes": [shape for shape in shapes if isinstance(shape, dict)]}


def _image_name(file: Path, labels: Path, content: dict[str, Any], finder: ImageFinder, images: Path) -> str:
    """The image that a file names, else the one that is called like the file."""
    written = content.get("imagePath")
    for name in (written, file.relative_to(labels).with_suffix("").as_posix()):
        try:
            found = finder(name) if isinstance(name, str) and name else None
        except ImageError:
            continue
        if found is not None and found.is_relative_to(images):
            return found.relative_to(images).as_posix()
    return written if isinstance(written, str) and written else file.stem


def _shape(shape: dict[str, Any], image_id: int, records: Records) -> None:
    kind = shape.get("shape_type") or "polygon"
    points = pairs(shape.get("points"))
    draw = SHAPES.get(kind) if isinstance(kind, str) else None
    if draw is None:
        records.leave_out("shape that is no polygon, rectangle, circle or mask", image_id,
                          f"{kind} {shape.get('label')}")  # fmt: skip
    elif points is None or not points:
        records.leave_out("shape with something else than points", image_id, shape.get("label"))
    else:
        draw(shape, points, image_id, records)


def _polygon(shape: dict[str, Any], points: Points, image_id: int, records: Records) -> None:
    records.polygon(image_id, shape.get("label"), points, shape.get("group_id"))


def _rectangle(shape: dict[str, Any], points: Points, image_id: int, records: Records) -> None:
    records.box(image_id, shape.get("label"), bounds(points))


def _rotated(shape: dict[str, Any], points: Points, image_id: int, records: Records) -> None:
    records.report.add("note", "rotated box (the upright one around it is used)",
                       records.images[image_id - 1]["file_name"])  # fmt: skip
    _rectangle(shape, points, image_id, records)


def _circle(shape: dict[str, Any], points: Points, image_id: int, records: Records) -> None:
    (cx, cy), (x, y) = points[0], points[-1]
    radius = math.hypot(x - cx, y - cy)
    records.polygon(image_id, shape.get("label"), ellipse(cx, cy, radius, radius))


def _mask(shape: dict[str, Any], points: Points, image_id: int, records: Records) -> None:
    """A picture of a part of the image, in base64, and where its corner is."""
    record = records.images[image_id - 1]
    try:
        if "width" not in record:
            raise RunLengthError("mask in an image without width and height")
        part = decode_image(base64.b64decode(shape.get("mask") or "", validate=True), upright=False)[..., 0] > 0
        left, top = (int(side) for side in bounds(points)[:2])
        mask, box = encode_part(part, left, top, (int(record["height"]), int(record["width"])))
    except (RunLengthError, ImageError, binascii.Error, TypeError, ValueError) as error:
        kind = str(error) if isinstance(error, RunLengthError) else "mask that cannot be decoded"
        records.leave_out(kind, image_id, shape.get("label"))
        return
    records.runs(image_id, shape.get("label"), mask, box)


SHAPES: dict[str, Callable[[dict[str, Any], Points, int, Records], None]] = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "rotation": _rotated,
    "oriented_rectangle": _rotated,
    "circle": _circle,
    "mask": _mask,
}
"""kinds of shapes that become objects"""
