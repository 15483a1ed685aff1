"""COCO annotation files (and others, brought into COCO's form), read, checked and repaired in one pass.

Nothing is written back: the file stays as it is, the repairs are in the returned data, and every one of them is
counted in the report.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.data.detection.categories import read_categories
from piip.data.detection.corners import as_sides
from piip.data.detection.frames import in_their_frames
from piip.data.detection.images import read_images
from piip.data.detection.objects import ObjectReader
from piip.data.detection.outlines import rectangle
from piip.data.detection.packed import PackedImages
from piip.data.detection.packer import Packer
from piip.data.detection.yolo import YAML_SUFFIXES, read_yolo
from piip.data.formats.records import Content, Format, Source, Split
from piip.data.json_records import Records, read_json_lists
from piip.data.report import NO_OBJECTS, CheckReport, DataError
from piip.data.values import Ids, as_id

__all__ = ["CocoData", "CocoImage", "CocoObject", "read_coco", "read_split"]

MANY_OBJECTS = 1000
"""on one image; more is worth a note, as training keeps a mask of each in memory"""


def read_coco(
    annotation_file: str | Path, image_folder: str | Source, format: Format | None = None
) -> tuple[CocoData, CheckReport]:
    """The data that an annotation file and its images hold, repaired, and the report of what was wrong.

    The first two arguments are a `Split`'s. Without a `format` the annotation file is COCO's .json, or a YOLO data
    set's .yaml: then `image_folder` is the split's, or its list of images, or several of these.

    Raises `DataError` where the file cannot be used at all: unreadable, not JSON, not COCO, without
    categories, or without a single usable image.
    """
    path = Path(annotation_file)
    source = image_folder if isinstance(image_folder, tuple) else Path(image_folder)
    used_format = format or (YOLO if path.suffix.lower() in YAML_SUFFIXES else COCO)
    report = CheckReport(file=str(path), format=used_format.name)
    content, folder = used_format.read(path, source, report)
    image_ids, numbers = _ids(content["images"], "image", report), _ids(content["categories"], "category", report)
    records = Records.of(content["annotations"])
    own_ids, used = _ids_of(records, numbers)
    category_ids, classes = read_categories(content["categories"], numbers, used, path, report)
    images = read_images(content["images"], folder, image_ids, report)
    if not images:
        raise DataError(f"{path}: none of its {len(content['images'])} images can be used; looked in {folder}"
                        f"{report.first_reason()}")  # fmt: skip
    images = in_their_frames(images, records, image_ids, report)
    unusable = {image_ids(record.get("id")) for record in content["images"] if isinstance(record, dict)}
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    known = {i for i in unusable if i is not None} - images.keys()
    report.listed = len(content.pop("images"))
    packer = ObjectReader(images, known, labels, image_ids, numbers, report).read(records, own_ids)
    has_masks = _mostly_outlined(packer, report)
    if has_masks:
        _complete_outlines(packer, list(images.values()), report)
    packed = PackedImages.of_buffers(packer.buffers())
    data = CocoData(packed, classes, category_ids, has_masks, str(path), report)
    _summarise(data, packed, report)
    return data, report


def read_split(split: Split) -> tuple[CocoData, CheckReport]:
    """`read_coco` of a split in whatever format it is."""
    return read_coco(*split, format=split.format)


def _ids(records: list[Any], what: str, report: CheckReport) -> Ids:
    ids = Ids(record.get("id") for record in records if isinstance(record, dict))
    for word, number in ids.words.items():
        report.add("note", f"{what} id that is a word (numbers stand for them)", f"{word}: {number}")
    return ids


def _ids_of(records: Records, numbers: Ids) -> tuple[array[int], set[int | None]]:
    """Ids of the annotations, as far as they have any, and the category ids that occur."""
    own, used = array("q"), set[Any]()
    for record in records.ids():
        number = as_id(record.id)
        if number is not None:
            own.append(number)
        if type(record.category_id) is not int or record.category_id not in used:
            used.add(numbers(record.category_id))
    return own, used


def _load(path: Path, images: Source, report: CheckReport) -> Content:
    assert isinstance(images, Path)
    content = read_json_lists(path, ("annotations",))
    needed = {"images", "categories"}
    if not isinstance(content, dict) or not needed <= content.keys():
        found = f"the keys {sorted(content)[:8]}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(f'{path}: not COCO annotations, which are an object with "images", "annotations" and '
                        f'"categories"; found {found}')  # fmt: skip
    content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if isinstance(content[key], dict):
            content[key] = _listed(content[key])
        if not isinstance(content[key], list | Records):
            raise DataError(f'{path}: "{key}" must be a list, found a {type(content[key]).__name__}')
    content["annotations"] = as_sides(content["annotations"], report)
    if not content["images"]:
        raise DataError(f"{path}: lists no images")
    return content, images


COCO = Format("COCO", _load)
YOLO = Format("YOLO", read_yolo)


def _listed(records: dict[str, Any]) -> list[Any]:
    """The records of a mapping from id to record, or from id to name."""
    return [
        {"id": key} | record if isinstance(record, dict) else {"id": key, "name": record}
        for key, record in records.items()
    ]


def _mostly_outlined(packer: Packer, report: CheckReport) -> bool:
    """Whether to treat the data as outlined: at least half of the objects have one."""
    outlined, crowd = packer.fields()["parts"] != 0, packer.fields()["crowd"]
    having, objects = int((outlined & ~crowd).sum()), int((~crowd).sum())
    if 0 < having < objects / 2:
        example = f"only {having} of {objects} objects have a usable outline"
        report.add("note", "outlines not used: most objects have boxes only", example)
    return objects > 0 and having >= objects / 2


def _complete_outlines(packer: Packer, images: list[CocoImage], report: CheckReport) -> None:
    """In outlined data, the box itself for objects without an outline: the class and place still count."""
    outlined, crowd = packer.fields()["parts"] != 0, packer.fields()["crowd"].copy()
    order = packer.by_image()
    for place in order[~(outlined | crowd)[order]].tolist():
        obj, image = packer.object(place), images[packer.positions[place]]
        where = f"annotation {obj.annotation_id} of image {image.id} ({image.path.name})"
        report.add("repaired", "object without a usable outline (its box is taken)", where)
        packer.replace(place, replace(obj, segmentation=rectangle(obj.box)))


def _summarise(data: CocoData, images: PackedImages, report: CheckReport) -> None:
    counts = np.bincount(images.labels(), minlength=len(data.classes)).tolist()
    of_images = images.object_counts()
    report.images = len(images)
    report.objects = sum(counts)
    report.crowds = int(of_images[:, 0].sum()) - report.objects
    report.masks = data.has_masks
    names = [name if data.classes.count(name) == 1 else f"{name} (id {category_id})"
             for name, category_id in zip(data.classes, data.category_ids, strict=True)]  # fmt: skip
    report.class_counts = dict(zip(names, counts, strict=True))
    for name, count in report.class_counts.items():
        if not count:
            report.add("note", "class without objects", name)
    for position in np.flatnonzero((of_images[:, 1] == 0) | (of_images[:, 0] > MANY_OBJECTS)).tolist():
        image = images[position]
        where = f"image {image.id} ({image.path.name})"
        if not of_images[position, 1]:
            report.add("note", "image without objects", where)
        if len(image.objects) > MANY_OBJECTS:
            report.add("note", f"image with more than {MANY_OBJECTS} objects", f"{where}: {len(image.objects)}")
    _note_crowds(data, report)
    if not report.objects:
        why = f", all {report.crowds} annotations are crowd regions (iscrowd = 1)" if report.crowds else ""
        report.add("error", NO_OBJECTS, f"{len(data.images)} images{why}, nothing to learn from")


def _note_crowds(data: CocoData, report: CheckReport) -> None:
    """A few crowd regions are COCO's own; where they outnumber the objects, an export may not have meant them so."""
    if report.crowds <= report.objects:
        return
    for image in data.images:
        for obj in image.objects:
            if obj.crowd:
                where = f"annotation {obj.annotation_id} of image {image.id} ({image.path.name})"
                report.add("left out", "crowd region (iscrowd = 1), which is not trained on", where)
