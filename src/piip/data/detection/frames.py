"""Which way up the annotations of rotated photos are, where a file's sizes and its boxes tell different stories.

Some tools write the width and height that are stored in a photo and boxes of the picture that they showed, which is the
upright one. Where a file has a box that fits only there, and none that fits only in the stored frame, it is such a
tool's, and all of its photos that are stored on their side are taken so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from piip.data.detection.annotations import CocoImage
from piip.data.report import CheckReport
from piip.data.values import Ids, as_number
from piip.structures import Size

SLACK = 1.0
"""pixels that an object may reach beyond the frame that it fits in"""


def in_their_frames(
    images: Mapping[int, CocoImage], records: Iterable[Any], image_ids: Ids, report: CheckReport
) -> dict[int, CocoImage]:
    """`images` with the frame that the annotation `records` are in, told by where objects fit."""
    on_their_side = {image_id for image_id, image in images.items() if not image.upright}
    if not on_their_side:
        return dict(images)
    objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        if isinstance(record, dict) and (image_id := image_ids(record.get("image_id"))) in on_their_side:
            assert image_id is not None
            objects[image_id].append(record)
    only_upright = {i for i in on_their_side if _fits_only(objects[i], images[i].size[::-1], images[i].size)}
    only_stored = {i for i in on_their_side if _fits_only(objects[i], images[i].size, images[i].size[::-1])}
    turned = on_their_side - only_stored if only_upright and not only_stored else only_upright
    decided = dict(images)
    for image_id in sorted(on_their_side):
        image = images[image_id]
        where = f"image {image_id} ({image.path.name})"
        if image_id in turned:
            decided[image_id] = replace(image, size=image.size[::-1], upright=True)
            report.add("repaired", "size of a rotated image as stored, with boxes of the upright one", where)
        else:
            report.add("note", "annotations in the stored frame of a rotated image (EXIF is not applied)", where)
    return decided


def _fits_only(objects: list[dict[str, Any]], frame: Size, other: Size) -> bool:
    """Whether all objects are within `frame`, and some are beyond `other`."""
    return all(_fits(record, frame) for record in objects) and not all(_fits(record, other) for record in objects)


def _fits(record: dict[str, Any], frame: Size) -> bool:
    """Whether box and outline, as far as they are numbers, end within (height, width)."""
    height, width = frame
    outline = record.get("segmentation")
    if isinstance(outline, list) and len(outline) == 1 and isinstance(outline[0], dict):
        outline = outline[0]
    if isinstance(outline, dict) and outline.get("size") in ([height, width], [width, height]):
        return bool(outline["size"] == [height, width])
    polygons = outline if isinstance(outline, list) else []
    corners = [_numbers(polygon) for polygon in polygons]
    box = _numbers(record.get("bbox"))
    if len(box) == 4:
        corners.append([box[0] + box[2], box[1] + box[3]])
    across = [x for points in corners for x in points[0::2]]
    down = [y for points in corners for y in points[1::2]]
    return max(across, default=0.0) <= width + SLACK and max(down, default=0.0) <= height + SLACK


def _numbers(values: Any) -> list[float]:
    """All of them; none where one is no number."""
    numbers = [as_number(value) for value in values] if isinstance(values, list) else []
    good = [number for number in numbers if number is not None]
    return good if len(good) == len(numbers) else []
