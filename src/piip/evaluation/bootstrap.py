"""AP in draws of as many images, with replacement: how far it depends on which images there happen to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from piip.evaluation.matches import Matches

RECALLS = np.linspace(0.0, 1.0, 101)
AT_ONCE = 2_000_000
"""numbers, of draws times detections, that are in memory together"""


def drawn_aps(classes: Sequence[Matches], times: np.ndarray, most: int) -> np.ndarray:
    """[draws, T, classes] AP of each draw at each overlap; NaN for a class without an object in a draw.

    A draw in which each image is once gives faster-coco-eval's numbers.

    Args:
        classes: what became of the detections of each
        times: [draws, images] how often each image is drawn, in the evaluator's order
        most: detections of a class in an image that count, the best
    """
    return np.stack([_of_class(_best(one, most), times) for one in classes], axis=2)


def _best(one: Matches, most: int) -> Matches:
    """Without what counts nowhere: the detections beyond the best, and those that are ignored at every overlap."""
    kept = (one.rank < most) & ~one.ignored.all(axis=0)
    return Matches(one.image[kept], one.rank[kept], one.right[:, kept], one.ignored[:, kept], one.objects)


def _of_class(one: Matches, times: np.ndarray) -> np.ndarray:
    """[draws, T]."""
    step = max(1, AT_ONCE // max(1, len(one.image)))
    parts = [_aps(one, times[start : start + step].astype(np.int32)) for start in range(0, len(times), step)]
    return np.concatenate(parts) if parts else np.zeros((0, len(one.right)))


def _aps(one: Matches, times: np.ndarray) -> np.ndarray:
    """Precision has its peaks where something is found: so only those places are looked at."""
    aps = np.full((len(times), len(one.right)), np.nan)
    objects = times @ one.objects
    defined = objects > 0
    each = times[defined][:, one.image]  # [draws, N] how often each detection counts
    every = each.cumsum(axis=1, dtype=np.int32)
    for level, (right, ignored) in enumerate(zip(one.right, one.ignored, strict=True)):
        places = np.flatnonzero(right)
        counted = every[:, places]
        if ignored.any():
            left_out = np.flatnonzero(ignored)
            before = each[:, left_out].cumsum(axis=1, dtype=np.int32)
            counted -= np.pad(before, ((0, 0), (1, 0)))[:, np.searchsorted(left_out, places)]
        found = each[:, places].cumsum(axis=1, dtype=np.int32)
        precision = found / np.maximum(counted, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))  # beyond the last recall
        recall = found / objects[defined, None]
        at = np.array([np.searchsorted(row, RECALLS) for row in recall], dtype=np.int64).reshape(-1, len(RECALLS))
        aps[defined, level] = np.take_along_axis(precision, at, axis=1).mean(axis=1)
    return aps
