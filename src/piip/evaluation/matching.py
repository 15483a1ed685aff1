"""Which detections are right, by COCO's rules: the best score first, each object once."""

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
    """What became of the detections of each class, in label order, all of them counted, by their boxes.

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
        found = sorted(by_image.get(image.id, []), key=lambda result: -result["score"])
        detected = np.array([labels[result["category_id"]] for result in found], dtype=np.int64)
        finds, ignored = _in_image(image, found, detected, iou)
        for result, label, hit, nowhere in zip(found, detected, finds, ignored, strict=True):
            if not nowhere:
                scores[label].append(result["score"])
                right[label].append(bool(hit))
    return tuple(_best_first(*of_class) for of_class in zip(scores, right, objects, strict=True))


def _best_first(scores: list[float], right: list[bool], objects: int) -> Judged:
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return Judged(np.asarray(scores, dtype=np.float64)[order], np.asarray(right, dtype=bool)[order], objects)


def _in_image(
    image: CocoImage, found: list[CocoResult], detected: np.ndarray, iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """`matched` of all classes of an image at once."""
    boxes = np.array([result["bbox"] for result in found], dtype=np.float64).reshape(-1, 4)
    annotated = np.array([item.label for item in image.objects], dtype=np.int64)
    crowd = np.array([item.crowd for item in image.objects], dtype=bool)
    truth = np.array([item.box for item in image.objects], dtype=np.float64).reshape(-1, 4)
    truth[:, 2:] -= truth[:, :2]
    overlap = np.where(detected[:, None] == annotated, _overlaps(boxes, truth, crowd), 0.0)
    finds, ignored = matched(overlap, crowd, crowd, np.array([iou]))
    return finds[0], ignored[0]


def matched(
    overlap: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, ious: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections find an object, and which are on one that is ignored, at each overlap from which that is so.

    A detection takes the object that it overlaps most, of equal ones the last, among those that count and that no
    better one took; else one that is ignored, of which crowd regions can be taken any number of times.

    Args:
        overlap: [D, G] of detections, the best first, and objects
        ignored: [G] bool, or [T, G], objects that count nowhere: crowd regions, and those of other sizes
        crowd: [G] bool
        ious: [T], all above 0

    Returns:
        two of [T, D] bool
    """
    count = len(ious)
    finds, nowhere = np.zeros((count, len(overlap)), dtype=bool), np.zeros((count, len(overlap)), dtype=bool)
    if not overlap.size:
        return finds, nowhere
    ignored = np.broadcast_to(ignored, (count, overlap.shape[1]))
    free = np.ones((count, overlap.shape[1]), dtype=bool)
    levels, every = np.minimum(ious, 1 - 1e-10)[:, None], np.arange(count)
    for row in np.flatnonzero(overlap.max(axis=1) >= levels.min()):
        able = (overlap[row] >= levels) & (free | crowd)
        counting = able & ~ignored
        wanted = np.where(counting.any(axis=1, keepdims=True), counting, able)
        last_best = overlap.shape[1] - 1 - np.where(wanted, overlap[row], -1.0)[:, ::-1].argmax(axis=1)
        taken = wanted[every, last_best]
        free[every[taken], last_best[taken]] = False
        finds[:, row] = taken & ~ignored[every, last_best]
        nowhere[:, row] = taken & ignored[every, last_best]
    return finds, nowhere


def _overlaps(boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """[boxes, truth] of (x, y, width, height): intersection over union; over the box alone with crowd regions.

    In the order in which COCO's code computes it: from other sums of the same numbers an overlap of exactly 0.6 comes
    out as a little less.
    """
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], truth[None, :, :2] + truth[None, :, 2:])
    common = (high - low).clip(min=0).prod(-1)
    own, theirs = boxes[:, 2:].prod(axis=1), truth[:, 2:].prod(axis=1)
    union = np.where(crowd, own[:, None], own[:, None] + theirs - common)
    overlaps: np.ndarray = common / np.maximum(union, 1e-12)
    return overlaps
