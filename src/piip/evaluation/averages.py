"""What COCO's evaluation measures of one kind of shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from piip.evaluation.judging import Interval, Sides

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve COCO numbers, in COCO's order."""

COUNTED = 100
"""detections of a class in an image, the best ones, that COCO's numbers count"""
MORE = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "ARs", "ARm", "ARl")
"""which are also given of more detections, as `AP@1000`, where an image has more than 100 objects or detections"""
OFFICIAL = tuple(f"{name}@1000" for name in MORE)
"""As the official evaluation (mmdetection's) has them, which counts up to 1000 (but its AP, which is of 100, too). They
differ from COCO's for a model that finds more than 100 objects of a class, as the published DINOs do, with 300. Where
an image has more than 1000 objects of a class, the next thousand is counted: `AP@2000`."""
NOTE_ON_COUNTING = "COCO's AP counts the best 100 of an image and class; AP@1000, beside it, counts all"


class OfSize(NamedTuple):
    """Average precision and recall of the objects of one range of sizes; detections as in `Averages.per_class`."""

    sides: Sides
    objects: tuple[int, ...]
    """of each class"""
    ap: float | None
    """mean over classes and IoU thresholds; None where no class has such objects"""
    ar: float | None
    per_class: tuple[float | None, ...]
    """AP of each class"""
    recalls: tuple[float | None, ...]
    """AR of each class"""


class AtOverlap(NamedTuple):
    """Average precision where an object counts as found from one overlap on; detections as in `Averages.per_class`."""

    iou: float
    ap: float | None
    """mean over classes; None where none has objects"""
    per_class: tuple[float | None, ...]
    """AP of each class"""
    interval: Interval | None
    """of `ap`, where intervals were asked for"""


@dataclass(frozen=True, eq=False)
class Averages:
    """Average precision and recall of one kind of shape: boxes or masks."""

    numbers: dict[str, float | None]
    """the twelve of `NUMBERS`, 0 to 1; None where no annotated object counts (say, no small ones for APs). Where an
    image has more than 100 objects of a class or more than 100 detections, also those of `OFFICIAL`"""
    per_class: tuple[float | None, ...]
    """AP of each class in label order; None for a class without objects, which no mean includes. Of all detections
    where `numbers` have such an AP, else of COCO's 100"""
    precision: np.ndarray
    """[10 IoU thresholds .50:.05:.95, 101 recalls 0:.01:1, classes]; -1 for a class without objects"""
    sizes: tuple[OfSize, ...] = ()
    """by the size limits that were asked for"""
    overlaps: tuple[AtOverlap, ...] = ()
    """at the overlaps that were asked for"""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """of the AP among `numbers`, where intervals were asked for: what 95 % of draws of as many images give"""
    class_intervals: tuple[Interval | None, ...] = ()
    """of `per_class`"""
    size_intervals: tuple[Interval | None, ...] = ()
    """of the AP of each of `sizes`"""

    @property
    def ap(self) -> float | None:
        """Mean over classes and IoU thresholds .50 to .95."""
        return self.numbers["AP"]

    @property
    def map(self) -> float | None:
        """As `ap`, by the name that hands know from elsewhere, as the next three are."""
        return self.numbers["AP"]

    @property
    def map50(self) -> float | None:
        """At IoU .50."""
        return self.numbers["AP50"]

    @property
    def map75(self) -> float | None:
        """At IoU .75."""
        return self.numbers["AP75"]

    @property
    def maps(self) -> np.ndarray:
        """[classes] AP of each class; NaN for one without objects."""
        return np.array([math.nan if value is None else value for value in self.per_class])

    @property
    def ar(self) -> float | None:
        """Average recall over classes and IoU thresholds .50 to .95, of the best 100 detections of an image."""
        return self.numbers["AR100"]
