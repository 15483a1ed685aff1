"""What became of every detection, at each overlap and for one range of sizes, as COCO counts them."""

from __future__ import annotations

from collections import defaultdict
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


def matches_of(evaluator: Any, areas: tuple[float, float]) -> list[Matches]:
    """The matches of each class, in label order.

    Args:
        evaluator: faster-coco-eval's, after `evaluate`, whose overlaps are used
        areas: least and largest that counts, both included
    """
    images = {number: position for position, number in enumerate(evaluator.params.imgIds)}
    truth, found = _by_class(evaluator.cocoGt), _by_class(evaluator.cocoDt)
    return [_of_class(evaluator, label, images, truth[label], found[label], areas)
            for label in evaluator.params.catIds]  # fmt: skip


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
    areas: tuple[float, float],
) -> Matches:
    ious, most = np.asarray(evaluator.params.iouThrs), evaluator.params.maxDets[-1]
    objects = np.zeros(len(images), dtype=np.int64)
    ignored_of: dict[int, np.ndarray] = {}
    for number, entries in truth.items():
        ignored_of[number] = np.array([bool(one["iscrowd"]) or not _within(one["area"], areas) for one in entries])
        objects[images[number]] = (~ignored_of[number]).sum()
    scores, positions, ranks = [np.zeros(0)], [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    right, ignored = [np.zeros((len(ious), 0), dtype=bool)], [np.zeros((len(ious), 0), dtype=bool)]
    for number in sorted(found, key=images.__getitem__):
        entries = sorted(found[number], key=lambda one: -one["score"])[:most]
        finds = nowhere = np.zeros((len(ious), len(entries)), dtype=bool)
        if number in truth:
            crowd = np.array([bool(one["iscrowd"]) for one in truth[number]])
            finds, nowhere = matched(np.asarray(evaluator.ious[number, label]), ignored_of[number], crowd, ious)
        elsewhere = np.array([not _within(one["area"], areas) for one in entries])
        right.append(finds)
        ignored.append(nowhere | (elsewhere & ~finds))
        scores.append(np.array([one["score"] for one in entries]))
        positions.append(np.full(len(entries), images[number]))
        ranks.append(np.arange(len(entries)))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return Matches(
        np.concatenate(positions)[order],
        np.concatenate(ranks)[order],
        np.concatenate(right, axis=1)[:, order],
        np.concatenate(ignored, axis=1)[:, order],
        objects,
    )


def _within(area: float, areas: tuple[float, float]) -> bool:
    return areas[0] <= area <= areas[1]
