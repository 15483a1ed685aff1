"""Which detections are right, by COCO's rules for boxes: the best score first, each object once."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from piip.prediction.coco import CocoResult

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData, CocoImage


class Judged(NamedTuple):
    """The detections of one class in all images, the best score first; those on crowd regions are left out."""

    scores: np.ndarray
    """[N] float64"""
    right: np.ndarray
    """[N] bool: whether it found an object that no better one had found"""
    objects: int
    """annotated, crowds not counted"""


def judged(results: list[CocoResult], data: CocoData, iou: float = 0.5) -> tuple[Judged, ...]:
    """What became of the detections of each class, in label order, all of them counted.

    Args:
        results: of the images of `data`, in its ids
        iou: overlap of boxes from which a detection finds an object
    """
    labels = {category_id: label for label, category_id in enumerate(data.category_ids)}
    by_image: dict[int, list[CocoResult]] = defaultdict(list)
    for result in results:
        by_image[result["image_id"]].append(result)
    scores: list[list[float]] = [[] for _ in data.classes]
    right: list[list[bool]] = [[] for _ in data.classes]
    objects = [0] * len(data.classes)
    for image in data.images:
        for item in image.objects:
            objects[item.label] += not item.crowd
        found = by_image.get(image.id, [])
        detected = np.array([labels[result["category_id"]] for result in found], dtype=np.int64)
        for result, label, outcome in zip(found, detected, _outcomes(image, found, detected, iou), strict=True):
            if outcome is not None:
                scores[label].append(result["score"])
                right[label].append(outcome)
    return tuple(_best_first(*of_class) for of_class in zip(scores, right, objects, strict=True))


def _best_first(scores: list[float], right: list[bool], objects: int) -> Judged:
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return Judged(np.asarray(scores, dtype=np.float64)[order], np.asarray(right, dtype=bool)[order], objects)


def _outcomes(image: CocoImage, found: list[CocoResult], detected: np.ndarray, iou: float) -> list[bool | None]:
    """Of each detection whether it is right; None where it counts nowhere, being on a crowd region of its class."""
    corners = np.array([result["bbox"] for result in found], dtype=np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    annotated = np.array([item.label for item in image.objects], dtype=np.int64)
    crowd = np.array([item.crowd for item in image.objects], dtype=bool)
    truth = np.array([item.box for item in image.objects], dtype=np.float64).reshape(-1, 4)
    overlap = np.where(detected[:, None] == annotated, _overlaps(corners, truth, crowd), 0.0)
    free = ~crowd
    outcomes: list[bool | None] = [False] * len(found)
    for row in np.argsort([-result["score"] for result in found], kind="stable"):
        candidates = np.where(free, overlap[row], 0.0)
        if candidates.size and candidates.max() >= iou:
            free[candidates.argmax()] = False
            outcomes[row] = True
        elif (overlap[row, crowd] >= iou).any():
            outcomes[row] = None
    return outcomes


def _overlaps(boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """[boxes, truth]: intersection over union; over the box alone with crowd regions."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    common = (high - low).clip(min=0).prod(-1)
    own, theirs = (np.prod(sides[:, 2:] - sides[:, :2], axis=1) for sides in (boxes, truth))
    union = np.where(crowd, own[:, None], own[:, None] + theirs - common)
    overlaps: np.ndarray = common / np.maximum(union, 1e-12)
    return overlaps
