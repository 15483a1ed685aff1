"""What an evaluation is asked for beyond the usual numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Interval = tuple[float, float]
"""lower and upper end"""
CONFIDENCE = 0.95
"""share of the draws that an interval holds"""
DRAWS = 1000
"""usual number of draws"""


class Sides(NamedTuple):
    """Objects as large as a square with a side from `low` to `high` pixels, both included."""

    low: float
    high: float

    @property
    def areas(self) -> list[float]:
        """In square pixels, as COCO's code takes them, whose largest area is 1e10."""
        return [self.low**2, min(self.high**2, 1e10)]

    def __str__(self) -> str:
        return f"{self.low:g} and more" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Judging:
    """What to measure, in detection also by object size.

    Args:
        area_limits: sides of squares in pixels, in rising order: objects are also judged apart by the size of their
            area from each limit to the next, and beyond the last. None: only by COCO's small, medium and large.
        ious: detection: overlaps, above 0 and at most 1, from which an object counts as found, for an AP at each of
            them beside COCO's.
        draws: of as many images as there are, with replacement, from which intervals come; 0: no intervals.
        seed: of the draws.

    Raises:
        ValueError: limits that do not rise, or are below 0; an overlap that is none.
    """

    area_limits: Sequence[float] | None = None
    draws: int = 0
    seed: int = 0
    ious: Sequence[float] = ()

    def __post_init__(self) -> None:
        for iou in self.ious:
            if not 0 < iou <= 1:
                raise ValueError(f"IoU {iou:g}: use overlaps above 0 and at most 1, such as 0.33")
        limits = self.area_limits
        if limits is None:
            return
        rising = all(low < high for low, high in pairwise(limits))
        if not (limits and rising and limits[0] >= 0 and math.isfinite(limits[-1])):
            given = ", ".join(f"{limit:g}" for limit in limits)
            raise ValueError(f"area limits {given}: use sides in pixels that rise, such as 0, 16, 32, 96")

    @property
    def sides(self) -> tuple[Sides, ...]:
        """The ranges between the limits."""
        limits = tuple(map(float, self.area_limits or ()))
        return tuple(map(Sides, limits, (*limits[1:], math.inf)))

    def refuse_what_objects_have(self, task: str) -> None:
        """ValueError where size limits or overlaps are asked for in a task without objects."""
        if self.area_limits is not None:
            raise ValueError(f"area limits are for detection; this model is for {task}")
        if self.ious:
            raise ValueError(f"an IoU is for detection; this model is for {task}")

    def times(self, images: int) -> np.ndarray:
        """[draws, images] how often each image is drawn; the same for all models, so that they can be compared."""
        return np.random.default_rng(self.seed).multinomial(images, np.full(images, 1 / images), size=self.draws)


PLAIN = Judging()
"""the usual numbers, without intervals: what an evaluation after an epoch needs"""
WITH_INTERVALS = Judging(draws=DRAWS)


def defined_means(table: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Means of what is not NaN; NaN where nothing else is."""
    defined = ~np.isnan(table)
    count = defined.sum(axis=axis)
    means: np.ndarray = np.where(count, np.where(defined, table, 0).sum(axis=axis) / np.maximum(count, 1), np.nan)
    return means


def interval(values: np.ndarray) -> Interval | None:
    """The middle part of what draws gave; None where a number was undefined in all of them."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return None
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, (outside, 1 - outside))
    return float(low), float(high)


def intervals(numbers: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """Those of the numbers that some draw defines, by name; `numbers` are what the draws gave, [draws] each."""
    found = {name: interval(values) for name, values in numbers.items()}
    return {name: ends for name, ends in found.items() if ends is not None}


def intervals_to_dict(
    found: Mapping[str, Interval], of_classes: Sequence[Interval | None], classes: Sequence[str]
) -> dict[str, Any]:
    """What `metrics.json` holds of the intervals of a task with one list of numbers; nothing where there are none."""
    if not found:
        return {}
    ends = dict(zip(classes, of_classes, strict=True))
    return {"intervals": {"confidence": CONFIDENCE, **found, "classes": ends}}
