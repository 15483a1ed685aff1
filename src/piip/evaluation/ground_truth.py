"""Annotations and results as COCO's evaluation code takes them: in numbers of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from piip.data.detection.outlines import rectangle
from piip.prediction.coco import CocoResult

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData


def image_numbers(data: CocoData) -> dict[int, int]:
    """Image id -> 1, 2, ... in the order of the ids, by which COCO breaks ties between equal scores.

    The evaluator works on numbers of our own, since it takes neither negative nor very large ids, and 0 means
    "unmatched" to it; files have them all.
    """
    return {image_id: number for number, image_id in enumerate(sorted(image.id for image in data.images), start=1)}


def renumbered(results: list[CocoResult], data: CocoData, numbers: dict[int, int], kind: str) -> list[CocoResult]:
    """The results in image numbers and label + 1; ValueError for one of no image or class of `data`."""
    labels = {category_id: label for label, category_id in enumerate(data.category_ids)}
    # As long as a result has a box, the evaluator takes mask AP by object size by the area of the box: COCO means
    # the area of the mask.
    shape = "bbox" if kind == "bbox" else "segmentation"
    renumbered = []
    for result in results:
        number, label = numbers.get(result["image_id"]), labels.get(result["category_id"])
        if number is None or label is None or shape not in result:
            raise ValueError(f"no image {result['image_id']} or category {result['category_id']} in the data, or no "
                             f"{shape} in its result: {result}")  # fmt: skip
        renumbered.append(
            {"image_id": number, "category_id": label + 1, "score": result["score"], shape: result[shape]}
        )
    return renumbered


def ground_truth(data: CocoData, numbers: dict[int, int], kind: str) -> dict[str, Any]:
    """The annotations as a COCO data set, with image numbers for image ids and label + 1 for category ids."""
    truth = data.to_coco()
    category_numbers = {category_id: label for label, category_id in enumerate(data.category_ids, start=1)}
    for entry in truth["images"]:
        entry["id"] = numbers[entry["id"]]
    for entry in truth["categories"]:
        entry["id"] = category_numbers[entry["id"]]
    for entry in truth["annotations"]:
        entry["image_id"] = numbers[entry["image_id"]]
        entry["category_id"] = category_numbers[entry["category_id"]]
        if kind == "segm" and "segmentation" not in entry:  # a crowd region with a box only
            x, y, width, height = entry["bbox"]
            entry["segmentation"] = rectangle((x, y, x + width, y + height))
    return truth
