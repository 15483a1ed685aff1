"""Results of an earlier evaluation, read back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from piip.data.report import DataError
from piip.data.text_files import read_json
from piip.prediction.coco import CocoResult

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData

KEYS = {"image_id", "category_id", "score", "bbox"}


def read_results(path: Path, data: CocoData) -> list[CocoResult]:
    """COCO results, such as an evaluation's `predictions.json`, on the images of `data`.

    Results of classes that the data does not have, as of a model that knows more, are left out.

    Raises:
        DataError: no results, or of other images or classes.
    """
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(row, dict) and row.keys() >= KEYS for row in content):
        raise DataError(f"{path}: no COCO results, a list of objects with {', '.join(sorted(KEYS))}; `piip val` writes "
                        "them as predictions.json, `piip predict` as coco_results.json")  # fmt: skip
    images, categories = {image.id for image in data.images}, set(data.category_ids)
    strange = next((row for row in content if row["image_id"] not in images), None)
    if strange is not None:
        raise DataError(f"{path}: has results on image {strange['image_id']}, which {data.source or 'the data'} does "
                        "not have; compare on the split that they were made on")  # fmt: skip
    known = [row for row in content if row["category_id"] in categories]
    if content and not known:
        raise DataError(f"{path}: none of its category ids is among the data's, {sorted(categories)[:8]}")
    return known


def all_have_masks(results: list[CocoResult]) -> bool:
    """Whether there are results, and each says which pixels are its object's."""
    return bool(results) and all("segmentation" in row for row in results)
