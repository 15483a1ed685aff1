"""From which score on the detections of a class should count: where its F1 is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from piip.evaluation.matching import Judged

IOU = 0.5
"""overlap from which a detection is right"""


class Threshold(NamedTuple):
    """The best score threshold of one class, and what it gives."""

    score: float
    """half way between the last detection that is to count and the next one, a float32"""
    f1: float
    """harmonic mean of precision and recall"""
    precision: float
    recall: float


def best_threshold(judged: Judged) -> Threshold | None:
    """The threshold with the highest F1, of equal ones the highest; None for a class of which nothing was found."""
    if not judged.objects or not judged.right.any():
        return None
    right, count = np.cumsum(judged.right), np.arange(1, len(judged.right) + 1)
    f1 = 2 * right / (count + judged.objects)
    f1[:-1][judged.scores[1:] == judged.scores[:-1]] = -1  # no threshold lies between equal scores
    last = int(f1.argmax())
    return Threshold(
        _between(judged.scores[last:]),
        float(f1[last]),
        float(right[last] / count[last]),
        float(right[last] / judged.objects),
    )


def _between(scores: np.ndarray) -> float:
    """A number that the first score reaches and the second does not, as far as possible from both."""
    if len(scores) == 1:
        return float(scores[0])
    middle = float(np.float32((scores[0] + scores[1]) / 2))
    return middle if scores[1] < middle <= scores[0] else float(scores[0])


def to_dict(thresholds: Sequence[Threshold | None], classes: Sequence[str], objects: Sequence[int]) -> dict[str, Any]:
    """What `thresholds.json` holds; null for a class of which nothing was found."""
    rows = zip(classes, objects, thresholds, strict=True)
    empty = dict.fromkeys(Threshold._fields)
    return {
        "iou": IOU,
        "classes": [
            {"class": name, "objects": count, **(empty if best is None else best._asdict())}
            for name, count, best in rows
        ],
    }
