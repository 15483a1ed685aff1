"""YOLO's layout: `data.yaml`, `images/train/` and, for every image, a text file in `labels/train/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from piip.data.conversion.together import copy_all, flat_names
from piip.data.conversion.traced import traced
from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.data.detection.outlines import rasterise
from piip.data.image_files import read_header
from piip.structures import Size

DIGITS = 8
"""of a side's part"""
TURNING = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width"""
MIRRORED_X, MIRRORED_Y = (2, 3, 6, 7), (3, 4, 7, 8)
"""those in which left and right, or above and below, of the result change places"""
Points = list[tuple[float, float]]


def write_yolo(splits: Mapping[str, CocoData], out: Path) -> None:
    """Boxes and polygons in parts of the upright image; what the layout cannot say goes to the data's report."""
    classes: tuple[str, ...] = ()
    for split, data in splits.items():
        classes = data.classes
        names = flat_names([image.path for image in data.images])
        copy_all((image.path, out / "images" / split / name) for image, name in zip(data.images, names, strict=True))
        labels = out / "labels" / split
        labels.mkdir(parents=True)
        for image, name in zip(data.images, names, strict=True):
            text = "".join(f"{line}\n" for line in _lines(image, data))
            (labels / f"{Path(name).stem}.txt").write_text(text, encoding="utf-8")
    described = {"path": ".", **{split: f"images/{split}" for split in splits}, "names": dict(enumerate(classes))}
    text = yaml.safe_dump(described, allow_unicode=True, sort_keys=False)
    (out / "data.yaml").write_text(text, encoding="utf-8")


def _lines(image: CocoImage, data: CocoData) -> Iterator[str]:
    orientation = 1 if image.upright else read_header(image.path)[1]
    height, width = image.size[::-1] if orientation in TURNING else image.size
    for obj in image.objects:
        where = f"annotation {obj.annotation_id} of {image.path.name}"
        if obj.crowd:
            data.report.add("left out", "crowd region, which YOLO's layout cannot say", where)
            continue
        polygon = _polygon(obj, image.size, data, where)
        if polygon is None:
            x1, y1, x2, y2 = obj.box
            corners = _upright([(x1, y1), (x2, y2)], image.size, orientation)
            (x1, x2), (y1, y2) = (sorted(sides) for sides in zip(*corners, strict=True))
            sides = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        else:
            upright = _upright(polygon, image.size, orientation)
            sides = [part for x, y in upright for part in (x / width, y / height)]
        yield " ".join([str(obj.label), *(f"{side:.{DIGITS}g}" for side in sides)])


def _polygon(obj: CocoObject, size: Size, data: CocoData, where: str) -> Points | None:
    """The outline as one polygon; None for a box."""
    outline = obj.segmentation
    if outline is None or not data.has_masks:
        return None
    if isinstance(outline, dict):
        data.report.add("note", "mask written as a polygon along the edges of its pixels", where)
        parts: list[Points] = [[(float(x), float(y)) for x, y in line] for line in traced(rasterise(outline, size))]
    else:
        parts = [list(zip(part[::2], part[1::2], strict=True)) for part in outline]
    joined = parts[0]
    for part in parts[1:]:  # there and back again along a line without a width
        joined = [*joined, joined[0], *part, part[0], joined[0]]
    return joined


def _upright(points: Points, stored: Size, orientation: int) -> Points:
    """Points in the frame of the pixels as they are stored, moved to that of the upright image."""
    turned = [(y, x) for x, y in points] if orientation in TURNING else points
    height, width = stored[::-1] if orientation in TURNING else stored
    across = orientation in MIRRORED_X
    down = orientation in MIRRORED_Y
    return [(width - x if across else x, height - y if down else y) for x, y in turned]
