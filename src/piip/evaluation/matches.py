"""What became of every detection, at each overlap and for one range of sizes, as COCO counts them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from piip.evaluation.matching import matched


class Matches(NamedTuple):
    """The detections of one class in all images, the best score first, of equal ones the first image's."""

    image: np.ndarray
    """[N] position of the image among those of the evaluator"""
    rank: np.ndarray
    """[N] place among the image's detections of the class, from 0"""
    right: np.ndarray
    """[T, N] bool: found an object that counts"""
    ignored: np.ndarray
    """[T, N] bool: counts nowhere, as its object does, or as it is of another size and finds none"""
    objects: np.ndarray
    """[images] that count"""


class Listed(NamedTuple):
    """Detections and objects of one class, the same for every range of sizes; those of an image lie side by side."""

    image: np.ndarray
    """[N] position of each detection's image"""
    rank: np.ndarray
    """[N] as in `Matches`"""
    area: np.ndarray
    """[N] of each detection"""
    order: np.ndarray
    """[N] the best score first"""
    object_image: np.ndarray
    """[M]"""
    object_area: np.ndarray
    """[M]"""
    crowd: np.ndarray
    """[M] bool"""
    met: tuple[tuple[slice, slice, np.ndarray], ...]
    """of each image with both, its detections, its objects and their overlaps"""
    images: int
    overlaps: np.ndarray
    """[T]"""


def listed(evaluator: Any) -> list[Listed]:
    """What faster-coco-eval's evaluator holds after `evaluate`, by class in label order."""
    images = {number: position for position, number in enumerate(evaluator.params.imgIds)}
    truth, found = _by_class(evaluator.cocoGt), _by_class(evaluator.cocoDt)
    return [_of_class(evaluator, label, images, truth[label], found[label]) for label in evaluator.params.catIds]


def matches_of(classes: Sequence[Listed], areas: Sequence[tuple[float, float]]) -> list[tuple[Matches, ...]]:
    """For each of `areas` (least and largest that counts, both included) the matches of each class."""
    return list(zip(*(_matches(one, areas) for one in classes), strict=True))


def _by_class(annotations: Any) -> dict[int, dict[int, list[dict[str, Any]]]]:
    """class -> image -> its entries, in the order in which they are listed."""
    apart: dict[int, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for entry in annotations.anns.values():
        apart[entry["category_id"]][entry["image_id"]].append(entry)
    return apart


def _of_class(
    evaluator: Any,
    label: int,
    images: dict[int, int],
    truth: dict[int, list[dict[str, Any]]],
    found: dict[int, list[dict[str, Any]]],
) -> Listed:
    most = evaluator.params.maxDets[-1]
    numbers = sorted(found, key=images.__getitem__)
    best = [sorted(found[number], key=lambda one: -one["score"])[:most] for number in numbers]
    counts = [len(entries) for entries in best]
    entries = [entry for of_image in best for entry in of_image]
    objects = [entry for of_image in truth.values() for entry in of_image]
    begins = dict(zip(truth, accumulate(map(len, truth.values()), initial=0), strict=False))
    met = tuple(
        (slice(end - count, end), slice(begins[number], begins[number] + len(truth[number])),
         np.asarray(evaluator.ious[number, label]))
        for number, count, end in zip(numbers, counts, accumulate(counts), strict=True) if number in truth
    )  # fmt: skip
    return Listed(
        np.repeat(np.array([images[number] for number in numbers], dtype=np.int64), counts),
        np.array([rank for count in counts for rank in range(count)], dtype=np.int64),
        np.array([entry["area"] for entry in entries], dtype=np.float64),
        np.argsort(-np.array([entry["score"] for entry in entries], dtype=np.float64), kind="stable"),
        np.array([images[entry["image_id"]] for entry in objects], dtype=np.int64),
        np.array([entry["area"] for entry in objects], dtype=np.float64),
        np.array([bool(entry["iscrowd"]) for entry in objects], dtype=bool),
        met,
        len(images),
        np.asarray(evaluator.params.iouThrs),
    )


def _matches(one: Listed, areas: Sequence[tuple[float, float]]) -> list[Matches]:
    """For each of `areas`; all are matched together, which takes hardly longer than one of them."""
    left_out = np.stack([one.crowd | ~_within(one.object_area, limits) for limits in areas])
    levels, each = np.tile(one.overlaps, len(areas)), len(one.overlaps)
    right, nowhere = np.zeros((2, len(levels), len(one.image)), dtype=bool)
    for detections, objects, overlaps in one.met:
        right[:, detections], nowhere[:, detections] = matched(
            overlaps, left_out[:, objects].repeat(each, axis=0), one.crowd[objects], levels
        )
    order, found = one.order, []
    for place, limits in enumerate(areas):
        part = slice(place * each, (place + 1) * each)
        ignored = nowhere[part] | (~_within(one.area, limits) & ~right[part])
        counted = np.bincount(one.object_image[~left_out[place]], minlength=one.images)
        found.append(Matches(one.image[order], one.rank[order], right[part, order], ignored[:, order], counted))
    return found


def _within(area: np.ndarray, areas: tuple[float, float]) -> np.ndarray:
    return (areas[0] <= area) & (area <= areas[1])
