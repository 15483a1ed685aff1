"""An annotated data set in memory, after checking and repairing: what `coco` and `yolo` files become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from piip.console import shortened
from piip.data.detection.image_records import Box, CocoImage, CocoObject, Segmentation
from piip.data.detection.packed import PackedImages
from piip.data.report import DataError, Findings, nothing_found

__all__ = ["Box", "CocoData", "CocoImage", "CocoObject", "Segmentation"]

LISTED = 8
"""classes that a message names"""


@dataclass(frozen=True)
class CocoData:
    """One split of a data set: images in the file's order, classes in the order of their ids."""

    images: Sequence[CocoImage]
    """where they were read, `PackedImages`"""
    classes: tuple[str, ...]
    """names, in label order"""
    category_ids: tuple[int, ...]
    """the file's own ids, in label order"""
    has_masks: bool
    """then every object that is not a crowd has a segmentation"""
    source: str = ""
    """the annotation file, for messages"""
    report: Findings = field(default_factory=nothing_found, compare=False, repr=False)
    """what was left out or repaired, and why"""

    def with_classes(self, classes: tuple[str, ...], category_ids: tuple[int, ...] | None = None) -> CocoData:
        """The same data with labels that follow `classes`, matched by name: what a trained model needs.

        `category_ids` are those of `classes`; by default this file's own ids where it has the class, and new
        ones elsewhere. Raises `DataError` for a class that occurs here and not in `classes`.
        """
        images = PackedImages.of(self.images)
        unknown = [self.classes[label] for label in sorted(images.used_labels()) if self.classes[label] not in classes]
        if unknown:
            raise DataError(f"{self.source}: classes {unknown} are not among the model's {len(classes)} classes "
                            f"({shortened(classes, LISTED)}); train on data with these, or rename them")  # fmt: skip
        if len(set(classes)) < len(classes) or len(set(self.classes)) < len(self.classes):
            raise DataError(f"{self.source}: classes cannot be matched by name, as two have the same name")
        own_ids = dict(zip(self.classes, self.category_ids, strict=True))
        if category_ids is None:
            new_id = max(own_ids.values()) + 1
            category_ids = tuple(own_ids.get(name, new_id + i) for i, name in enumerate(classes))
        new_label = [classes.index(name) if name in classes else -1 for name in self.classes]
        relabelled = images.relabelled(new_label)
        return replace(self, images=relabelled, classes=tuple(classes), category_ids=tuple(category_ids))

    def to_coco(self) -> dict[str, Any]:
        """The data as a COCO dictionary in the file's own image and category ids, crowds included.

        Annotations are numbered from 1: COCO's evaluation code takes an annotation id of 0 for "no match".
        """
        categories = [{"id": i, "name": name} for i, name in zip(self.category_ids, self.classes, strict=True)]
        images = [
            {"id": image.id, "file_name": image.path.name, "height": image.size[0], "width": image.size[1]}
            for image in self.images
        ]
        pairs = [(image, obj) for image in self.images for obj in image.objects]
        annotations = [
            _to_annotation(number, image, obj, self.category_ids[obj.label])
            for number, (image, obj) in enumerate(pairs, start=1)
        ]
        return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _to_annotation(number: int, image: CocoImage, obj: CocoObject, category_id: int) -> dict[str, Any]:
    x1, y1, x2, y2 = obj.box
    annotation = {
        "id": number,
        "image_id": image.id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": obj.area,
        "iscrowd": int(obj.crowd),
    }
    if obj.segmentation is not None:
        annotation["segmentation"] = obj.segmentation
    return annotation
