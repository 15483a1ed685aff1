"""The annotation records of a COCO file: boxes and outlines, checked and repaired one by one."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from piip.data.detection.annotations import Box, CocoImage, CocoObject, Segmentation
from piip.data.detection.outlines import checked_outline, outline_area, outline_bounds
from piip.data.detection.packer import Packer
from piip.data.detection.plain_objects import TOLERANCE, Plain, PlainObjects
from piip.data.json_records import BLOCK, Records, without_collections
from piip.data.report import OF_LEFT_OUT, CheckReport
from piip.data.values import Ids, as_id, as_number
from piip.structures import Size


class ObjectReader:
    """Reads the objects of usable images."""

    def __init__(
        self,
        images: Mapping[int, CocoImage],
        unusable: set[int],
        labels: Mapping[int, int],
        image_ids: Ids,
        category_ids: Ids,
        report: CheckReport,
    ) -> None:
        """Those `images`; `unusable` are the ids of records that were left out before, `labels` maps category ids to
        labels; `image_ids` and `category_ids` make numbers of the file's ids."""  # fmt: skip
        self.images, self.unusable, self.labels, self.report = images, unusable, labels, report
        self.image_ids, self.category_ids = image_ids, category_ids

    @without_collections()
    def read(self, records: Records, ids: Sequence[int]) -> Packer:
        """The images with their objects, in the order of the records, whose `ids` are these as far as they have any."""
        packer = Packer()
        for image in self.images.values():
            packer.add_image(image)
        own_ids = _AnnotationIds(ids)
        plain = PlainObjects(self.images, self.labels, own_ids.first)
        numbers = array("q")
        """of the record of each object"""
        for start in range(0, len(records), BLOCK):
            good = plain.rows(records.as_kind(Plain, start, start + BLOCK), packer.texts)
            block = range(start, min(start + BLOCK, len(records)))
            before = 0
            for number in [*np.setdiff1d(block, start + good.places, assume_unique=True).tolist(), block.stop]:
                until = int(np.searchsorted(good.places, number - start))
                packer.add_rows(good.positions[before:until], good.rows[before:until])
                numbers.extend((start + good.places[before:until]).tolist())
                before = until
                obj = None if number == block.stop else self._looked_at(records[number], number, own_ids)
                if obj is not None:
                    packer.add(plain.positions[obj[0]], obj[1])
                    numbers.append(number)
        _note_repeated(packer, numbers, records, self.report)
        return packer

    def _looked_at(self, record: Any, number: int, own_ids: _AnnotationIds) -> tuple[int, CocoObject] | None:
        """The id of the image and the object of record `number`, which is perhaps not as it should be."""
        if not isinstance(record, dict):
            self.report.add("left out", "annotation that is not an object", f"record {number}: {record!r:.80}")
            return None
        image_id = self.image_ids(record.get("image_id"))
        image = None if image_id is None else self.images.get(image_id)
        where = _where(record)
        if image is None:
            known = image_id in self.unusable
            self.report.add("left out", OF_LEFT_OUT if known else "annotation of an unknown image", where)
            return None
        category_id = self.category_ids(record.get("category_id"))
        label = None if category_id is None else self.labels.get(category_id)
        annotation_id = own_ids.take(record, where, self.report)
        if annotation_id is None:
            return None
        obj = _object(record, annotation_id, image, label, where, self.report)
        return None if obj is None else (image.id, obj)


def _where(record: dict[str, Any]) -> str:
    return f"annotation {record.get('id')!r:.40} of image {record.get('image_id')!r:.40}"


def _note_repeated(packer: Packer, numbers: array[int], records: Records, report: CheckReport) -> None:
    """Note objects of one class and box on an image; `numbers` are those of the objects' records."""
    fields = packer.fields()
    columns = [np.frombuffer(packer.positions, np.int64), fields["label"], fields["crowd"], *fields["box"].T]
    order = np.lexsort(columns)
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    for place in np.sort(order[1:][same]).tolist():
        report.add("note", "object annotated twice (same class and box)", _where(records[numbers[place]]))


class _AnnotationIds:
    """Gives every annotation an id of its own: the file's where it is good, else a new one."""

    def __init__(self, ids: Sequence[int]) -> None:
        given = np.sort(np.array(ids, np.int64))
        self.first: dict[int, dict[str, Any] | None] = dict.fromkeys(given[1:][given[1:] == given[:-1]].tolist())
        """of the ids that several records have, the first record; None before it is met"""
        self.next_id = max(int(given[-1]) if len(given) else 0, 0) + 1

    def take(self, record: dict[str, Any], where: str, report: CheckReport) -> int | None:
        """The id of `record`; None if the whole record is a repetition."""
        annotation_id = as_id(record.get("id"))
        if annotation_id is None:
            report.add("repaired", "annotation without an integer id", where)
        elif annotation_id not in self.first:
            return annotation_id
        elif self.first[annotation_id] is None:
            self.first[annotation_id] = record
            return annotation_id
        elif record == self.first[annotation_id]:
            report.add("left out", "annotation record repeated", where)
            return None
        else:
            report.add("repaired", "annotation id used twice", where)
        self.next_id += 1
        return self.next_id - 1


def _object(
    record: dict[str, Any],
    annotation_id: int,
    image: CocoImage,
    label: int | None,
    where: str,
    report: CheckReport,
) -> CocoObject | None:
    where = f"{where} ({image.path.name})"
    if label is None:
        report.add("left out", "unknown category", f"{where}: category {record.get('category_id')!r:.40}")
        return None
    outline, faults = checked_outline(record.get("segmentation"), image.size)
    for fault in faults:
        report.add("repaired" if outline is not None else "left out", fault, where)
    box = _box(record.get("bbox"), outline, image.size, where, report)
    if box is None:
        return None
    area = _area(record.get("area"), box, outline, where, report)
    crowd = _is_crowd(record.get("iscrowd", 0), where, report)
    return CocoObject(box, label, outline, crowd, annotation_id, area)


def _box(value: Any, outline: Segmentation | None, size: Size, where: str, report: CheckReport) -> Box | None:
    """The box as (x1, y1, x2, y2), from the outline where the file's own is of no use; None if neither helps."""
    numbers = [as_number(number) for number in value] if isinstance(value, list) else []
    good = [number for number in numbers if number is not None]
    if len(good) == 4 and any(isinstance(number, str) for number in value):
        report.add("repaired", "box written as text", f"{where}: {value!r:.80}")
    height, width = size
    if len(numbers) != 4 or len(good) != 4:
        fault = "box that is not four finite numbers" if value else "object without a box"
    else:
        x, y, w, h = good
        if w < 0 or h < 0:
            fault = "box with a negative side"
        elif w == 0 or h == 0:
            fault = "box of zero size"
        elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
            fault = "box wholly outside the image"
        else:
            return _within((x, y, x + w, y + h), size, where, report)
    example = f"{where}: {value!r:.80}"
    if outline is None:
        report.add("left out", fault, example)
        return None
    report.add("repaired", f"{fault} (taken from the outline)", example)
    return outline_bounds(outline, size)


def _within(box: Box, size: Size, where: str, report: CheckReport) -> Box:
    x1, y1, x2, y2 = box
    height, width = size
    if min(x1, y1) < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE:
        example = f"{where}: {_text(box)} in {width} x {height}"
        report.add("repaired", "box that reaches outside the image (clipped)", example)
        x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if x2 - x1 < 1 or y2 - y1 < 1:
        report.add("note", "box thinner than a pixel", f"{where}: {_text(box)}")
    return x1, y1, x2, y2


def _area(value: Any, box: Box, outline: Segmentation | None, where: str, report: CheckReport) -> float:
    area = as_number(value)
    if area is not None and area > 0:
        return area
    report.add("repaired", "object without an area (computed)", where)
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1) if outline is None else outline_area(outline)


def _is_crowd(value: Any, where: str, report: CheckReport) -> bool:
    if value is None or value in (0, 1) or value in ("0", "1"):
        return bool(int(value or 0))
    report.add("repaired", "iscrowd that is neither 0 nor 1 (taken as 0)", f"{where}: {value!r:.40}")
    return False


def _text(box: Box) -> str:
    return "(" + ", ".join(f"{side:.6g}" for side in box) + ")"
