"""COCO annotation files (and YOLO's, brought into COCO's form), read, checked and repaired in one pass.

Nothing is written back: the file stays as it is, the repairs are in the returned data, and every one of them is
counted in the report.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.data.detection.images import read_images
from piip.data.detection.objects import read_objects
from piip.data.detection.outlines import rectangle
from piip.data.detection.yolo import YAML_SUFFIXES, read_yolo
from piip.data.report import CheckReport, DataError
from piip.data.values import as_id

__all__ = ["CocoData", "CocoImage", "CocoObject", "read_coco"]

MANY_OBJECTS = 1000
"""on one image; more is worth a note, as training keeps a mask of each in memory"""


def read_coco(annotation_file: str | Path, image_folder: str | Path) -> tuple[CocoData, CheckReport]:
    """The data that an annotation file and its images hold, repaired, and the report of what was wrong.

    The annotation file is COCO's .json, or a YOLO data set's .yaml: then `image_folder` is the split's.

    Raises `DataError` where the file cannot be used at all: unreadable, not JSON, not COCO, without
    categories, or without a single usable image.
    """
    path, folder = Path(annotation_file), Path(image_folder)
    report = CheckReport(file=str(path))
    if path.suffix.lower() in YAML_SUFFIXES:
        content, folder = read_yolo(path, folder, report)
    else:
        content = _load(path)
    category_ids, classes = _read_categories(content["categories"], path, report)
    images = read_images(content["images"], folder, report)
    if not images:
        raise DataError(f"{path}: none of its {len(content['images'])} images can be used; looked in {folder}"
                        f"{_first_reason(report)}")  # fmt: skip
    unusable = {as_id(record.get("id")) for record in content["images"] if isinstance(record, dict)}
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    objects = read_objects(
        content["annotations"], images, {i for i in unusable if i is not None} - images.keys(), labels, report
    )
    has_masks = _mostly_outlined([obj for group in objects.values() for obj in group], report)
    complete = [
        replace(image, objects=tuple(_with_outlines(objects.get(image.id, []), has_masks, image, report)))
        for image in images.values()
    ]
    data = CocoData(complete, classes, category_ids, has_masks, str(path))
    _summarise(data, report)
    return data, report


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())  # bytes: finds out about UTF-8, UTF-16 and byte order marks
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except RecursionError as error:
        raise DataError(f"{path}: nested too deeply for an annotation file") from error
    except ValueError as error:  # JSON and text encoding errors
        raise DataError(f"{path}: not a whole JSON file ({error}); is it cut off? Export it again") from error
    needed = {"images", "categories"}
    if not isinstance(content, dict) or not needed <= content.keys():
        found = f"the keys {sorted(content)[:8]}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(f'{path}: not COCO annotations, which are an object with "images", "annotations" and '
                        f'"categories"; found {found}')  # fmt: skip
    content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content[key], list):
            raise DataError(f'{path}: "{key}" must be a list, found a {type(content[key]).__name__}')
    if not content["images"]:
        raise DataError(f"{path}: lists no images")
    return content


def _read_categories(records: list[Any], path: Path, report: CheckReport) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Ids in ascending order, so that labels don't depend on the order in the file, and their names."""
    names: dict[int, str] = {}
    for position, record in enumerate(records):
        category_id = as_id(record.get("id")) if isinstance(record, dict) else None
        if category_id is None:
            report.add("left out", "category without an integer id", f"record {position}: {record!r:.80}")
            continue
        name = record.get("name")
        if not isinstance(name, str) or not name.strip():
            report.add("repaired", "category without a name (its id is used)", f"category {category_id}")
            name = str(category_id)
        if category_id not in names:
            names[category_id] = name
        elif names[category_id] == name:
            report.add("repaired", "category repeated", f"category {category_id} ({name})")
        else:
            pair = f"category {category_id}: {names[category_id]} (used) and {name}"
            report.add("error", "category id with two names", pair)
    if not names:
        raise DataError(f'{path}: no usable categories; "categories" must list {{"id": 1, "name": "..."}}')
    for name in sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
        ids = [i for i, other in names.items() if other == name]
        report.add("note", "category name used for several ids (kept apart)", f"{name}: {ids}")
    ordered = sorted(names)
    return tuple(ordered), tuple(names[category_id] for category_id in ordered)


def _mostly_outlined(objects: list[CocoObject], report: CheckReport) -> bool:
    """Whether to treat the data as outlined: at least half of the objects have one."""
    outlined = [obj.segmentation is not None for obj in objects if not obj.crowd]
    if 0 < sum(outlined) < len(outlined) / 2:
        example = f"only {sum(outlined)} of {len(outlined)} objects have a usable outline"
        report.add("note", "outlines not used: most objects have boxes only", example)
    return bool(outlined) and sum(outlined) >= len(outlined) / 2


def _with_outlines(
    objects: list[CocoObject], has_masks: bool, image: CocoImage, report: CheckReport
) -> list[CocoObject]:
    """In outlined data, the box itself for objects without an outline: the class and place still count."""
    if not has_masks:
        return objects
    complete = []
    for obj in objects:
        if obj.segmentation is None and not obj.crowd:
            where = f"annotation {obj.annotation_id} of image {image.id} ({image.path.name})"
            report.add("repaired", "object without a usable outline (its box is taken)", where)
            obj = replace(obj, segmentation=rectangle(obj.box))
        complete.append(obj)
    return complete


def _summarise(data: CocoData, report: CheckReport) -> None:
    objects = [obj for image in data.images for obj in image.objects]
    counts = [0] * len(data.classes)
    for obj in objects:
        counts[obj.label] += not obj.crowd
    report.images = len(data.images)
    report.objects = sum(counts)
    report.crowds = len(objects) - report.objects
    report.masks = data.has_masks
    names = [name if data.classes.count(name) == 1 else f"{name} (id {category_id})"
             for name, category_id in zip(data.classes, data.category_ids, strict=True)]  # fmt: skip
    report.class_counts = dict(zip(names, counts, strict=True))
    for name, count in report.class_counts.items():
        if not count:
            report.add("note", "class without objects", name)
    for image in data.images:
        where = f"image {image.id} ({image.path.name})"
        if all(obj.crowd for obj in image.objects):
            report.add("note", "image without objects", where)
        if len(image.objects) > MANY_OBJECTS:
            report.add("note", f"image with more than {MANY_OBJECTS} objects", f"{where}: {len(image.objects)}")
    if not report.objects:
        report.add("error", "no objects at all", f"{len(data.images)} images, nothing to learn from")


def _first_reason(report: CheckReport) -> str:
    findings = report.sorted_findings()
    return f"; first: {findings[0].kind}, {findings[0].examples[0]}" if findings else ""
