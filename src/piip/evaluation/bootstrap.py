"""AP in draws of as many images, with replacement: how far it depends on which images there happen to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from piip.evaluation.matches import Matches

RECALLS = np.linspace(0.0, 1.0, 101)
NOT_REACHED = np.arange(101) / 100 < RECALLS
"""of a recall of so many hundredths: whether it counts as less, since the number above it is a little larger"""
AT_ONCE = 8_000_000
"""numbers, of places times draws, that are in memory together"""


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
    with_objects = np.flatnonzero(one.objects)
    objects = one.objects[with_objects] @ times[with_objects]
    aps = np.empty((draws, len(one.right)))
    somewhere = np.flatnonzero(one.right.any(axis=0))
    step = max(1, AT_ONCE // max(1, len(somewhere)))
    for start in range(0, draws, step):
        some = slice(start, start + step)
        part = times if step >= draws else np.ascontiguousarray(times[:, some])
        aps[some] = _aps(one, somewhere, part, objects[some]).T
    aps[objects == 0] = np.nan
    return aps


def _aps(one: Matches, somewhere: np.ndarray, times: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """[T, draws] of `times` [images, draws] and the objects [draws] that count; some number in a draw without any.

    Precision has its peaks where something is found: so only those places are looked at, which are `somewhere`.
    """
    aps = np.zeros((len(one.right), times.shape[1]))
    every = _counted_before(one.image, somewhere + 1, times)
    for level, (right, ignored) in enumerate(zip(one.right, one.ignored, strict=True)):
        places = np.flatnonzero(right)
        if not len(places):
            continue
        counted = every[np.searchsorted(somewhere, places)]
        left_out = np.flatnonzero(ignored)
        if len(left_out):
            counted -= _counted_before(one.image[left_out], np.searchsorted(left_out, places), times)
        found = _running(times[one.image[places]])
        precision = found / np.maximum(counted, 1, out=counted)
        for row in range(len(places) - 2, -1, -1):
            np.maximum(precision[row], precision[row + 1], out=precision[row])
        recalls = _recalls_reached(found, np.maximum(objects, 1))
        recalls[1:] -= recalls[:-1].copy()
        aps[level] = np.einsum("pd,pd->d", precision, recalls)
    return aps / len(RECALLS)


def _counted_before(images: np.ndarray, ends: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[P, draws] how often those of the first `ends` detections [P], rising, are drawn, one of each of `images` [N]."""
    from scipy.sparse import csr_array  # of the extra `train`, as all that evaluates objects

    last = ends[-1] if len(ends) else 0
    begins = np.concatenate(([0], ends))
    between = csr_array((np.ones(last, dtype=times.dtype), images[:last], begins), shape=(len(ends), len(times)))
    return _running(between @ times)


def _running(numbers: np.ndarray) -> np.ndarray:
    """Sums from the first row on, in place: row by row, which is faster than numpy's for long rows."""
    for row in range(1, len(numbers)):
        numbers[row] += numbers[row - 1]
    return numbers


def _recalls_reached(found: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """[P, draws] float: how many of `RECALLS` are no more than `found / objects`."""
    hundredths = found * 100.0 / objects
    whole = np.floor(hundredths)
    reached = whole + 1
    rows, draws = np.nonzero(hundredths == whole)  # there alone rounding decides
    reached[rows, draws] -= NOT_REACHED[whole[rows, draws].astype(np.int64)]
    return reached
