"""AP in draws of as many images, with replacement: how far it depends on which images there happen to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from piip.evaluation.matches import Matches

RECALLS = np.linspace(0.0, 1.0, 101)
NOT_REACHED = np.arange(101) / 100 < RECALLS
"""of a recall of so many hundredths: whether it counts as less, since the number above it is a little larger"""
AT_ONCE = 8_000_000
"""numbers, of detections times draws, that are in memory together"""


def drawn_aps(classes: Sequence[Matches], times: np.ndarray, most: int) -> np.ndarray:
    """[draws, T, classes] AP of each draw at each overlap; NaN for a class without an object in a draw.

    A draw in which each image is once gives faster-coco-eval's numbers.

    Args:
        classes: what became of the detections of each
        times: [draws, images] how often each image is drawn, in the evaluator's order
        most: detections of a class in an image that count, the best
    """
    of_images = np.ascontiguousarray(times.T, dtype=np.int32)
    return np.stack([_of_class(_best(one, most), of_images) for one in classes], axis=2)


def _best(one: Matches, most: int) -> Matches:
    """Without what counts nowhere: the detections beyond the best, and those that are ignored at every overlap."""
    kept = (one.rank < most) & ~one.ignored.all(axis=0)
    return Matches(one.image[kept], one.rank[kept], one.right[:, kept], one.ignored[:, kept], one.objects)


def _of_class(one: Matches, times: np.ndarray) -> np.ndarray:
    """[draws, T] of `times` [images, draws]."""
    draws = times.shape[1]
    objects = one.objects @ times
    aps = np.full((draws, len(one.right)), np.nan)
    step = max(1, AT_ONCE // max(1, len(one.image)))
    for start in range(0, draws, step):
        some = slice(start, start + step)
        defined = objects[some] > 0
        aps[some][defined] = _aps(one, times[:, some][:, defined], objects[some][defined]).T
    return aps


def _aps(one: Matches, times: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """[T, draws] of `times` [images, draws] and the objects [draws] that count, some in each.

    Precision has its peaks where something is found: so only those places are looked at.
    """
    aps = np.zeros((len(one.right), times.shape[1]))
    somewhere = np.flatnonzero(one.right.any(axis=0))
    if not len(somewhere):
        return aps
    each = times[one.image]  # [N, draws] how often each detection counts
    begins = np.concatenate(([0], somewhere[:-1] + 1))
    every = np.add.reduceat(each[: somewhere[-1] + 1], begins, axis=0).cumsum(axis=0, dtype=np.int32)
    for level, (right, ignored) in enumerate(zip(one.right, one.ignored, strict=True)):
        places = np.flatnonzero(right)
        if not len(places):
            continue
        counted = every[np.searchsorted(somewhere, places)]
        if ignored.any():
            left_out = np.flatnonzero(ignored)
            before = each[left_out].cumsum(axis=0, dtype=np.int32)
            counted -= np.pad(before, ((1, 0), (0, 0)))[np.searchsorted(left_out, places)]
        found = each[places].cumsum(axis=0, dtype=np.int32)
        precision = found / np.maximum(counted, 1)
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        aps[level] = np.einsum("pd,pd->d", precision, np.diff(_recalls_reached(found, objects), axis=0, prepend=0))
    return aps / len(RECALLS)


def _recalls_reached(found: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """[P, draws] float: how many of `RECALLS` are no more than `found / objects`."""
    hundredths = found * 100.0 / objects
    whole = np.floor(hundredths)
    reached = whole + 1
    rows, draws = np.nonzero(hundredths == whole)  # there alone rounding decides
    reached[rows, draws] -= NOT_REACHED[whole[rows, draws].astype(np.int64)]
    return reached
