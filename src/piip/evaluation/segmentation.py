"""Scores of label maps: what each pixel was taken for, and the overlap of every class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from piip.evaluation.judging import Interval, Judging, defined_means, interval, intervals, intervals_to_dict
from piip.evaluation.missed import caption, missed
from piip.evaluation.sizes import percent
from piip.files import write_json
from piip.structures import IGNORED


@dataclass(frozen=True, eq=False)
class SegmentationMetrics:
    """All follows from the counts; classes that are neither annotated nor predicted have no IoU (None)."""

    classes: tuple[str, ...]
    confusion: np.ndarray
    """[K, K] int64: pixels by annotated (rows) and predicted class; ignored pixels are not counted"""
    each: np.ndarray
    """[images, 3, K] int64: of each image the pixels of a class that are right, annotated and predicted"""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """of the three figures, where intervals were asked for: what 95 % of draws of as many images give"""
    class_intervals: tuple[Interval | None, ...] = ()
    """of `iou`"""
    unreadable: tuple[str, ...] = ()
    """files that could not be read when their turn came, without which the counts are, and what is wrong with them"""

    @property
    def iou(self) -> list[float | None]:
        """Per class: pixels that are both annotated and predicted so, over those that are either."""
        right = np.diag(self.confusion)
        either = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - right
        return _ratios(right, either)

    @property
    def accuracy(self) -> list[float | None]:
        """Per class: annotated pixels that were found."""
        return _ratios(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def mean_iou(self) -> float | None:
        """Over the classes that have one."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float | None:
        """Over the annotated classes."""
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float | None:
        """Annotated pixels whose class was found."""
        every = int(self.confusion.sum())
        return float(np.trace(self.confusion) / every) if every else None

    @property
    def miou(self) -> float | None:
        """`mean_iou`, as other libraries call it."""
        return self.mean_iou

    @property
    def macc(self) -> float | None:
        """`mean_accuracy`, as other libraries call it."""
        return self.mean_accuracy

    @property
    def aacc(self) -> float | None:
        """`pixel_accuracy`, as other libraries call it."""
        return self.pixel_accuracy

    @property
    def ious(self) -> dict[str, float | None]:
        """`iou` by class name."""
        return dict(zip(self.classes, self.iou, strict=True))

    def drawn(self, times: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The three figures, [draws] each, and IoU, [draws, K], in draws as `Judging.times` has them."""
        each = self.each.reshape(len(self.each), -1).astype(np.float64)
        pixels = (times.astype(np.float64) @ each).reshape(len(times), 3, -1)
        right, annotated, predicted = pixels[:, 0], pixels[:, 1], pixels[:, 2]
        either, every = annotated + predicted - right, annotated.sum(axis=1)
        with np.errstate(invalid="ignore"):
            iou, accuracy, whole = right / either, right / annotated, right.sum(axis=1) / every
        return {
            "mIoU": defined_means(iou, 1),
            "pixel_accuracy": whole,
            "mean_accuracy": defined_means(accuracy, 1),
        }, iou

    def with_intervals(self, judging: Judging) -> SegmentationMetrics:
        """The same, with intervals where draws are asked for; ValueError where object sizes are."""
        judging.refuse_what_objects_have("segmentation")
        if not judging.draws:
            return self
        numbers, classes = self.drawn(judging.times(len(self.each)))
        return replace(self, intervals=intervals(numbers), class_intervals=tuple(map(interval, classes.T)))

    def scalars(self) -> dict[str, float]:
        """`mIoU`, `pixel_accuracy` and `mean_accuracy`, 0 to 1, as far as they are defined."""
        values = {"mIoU": self.mean_iou, "pixel_accuracy": self.pixel_accuracy, "mean_accuracy": self.mean_accuracy}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        rows = zip(self.classes, self.iou, self.accuracy, self.confusion.sum(axis=1).tolist(), strict=True)
        return {
            "mIoU": self.mean_iou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "classes": {name: {"iou": iou, "accuracy": acc, "pixels": pixels} for name, iou, acc, pixels in rows},
            "confusion": self.confusion.tolist(),
            **missed(self.unreadable),
            **intervals_to_dict(self.intervals, self.class_intervals, self.classes),
        }

    def save(self, path: Path) -> None:
        """Write `to_dict` as JSON."""
        write_json(path, self.to_dict(), indent=1)

    def summary_table(self) -> Table:
        """The three figures, in percent."""
        table = Table("", "%", title="segmentation", caption=caption(self.unreadable))
        for name, value in self.scalars().items():
            table.add_row(name.replace("_", " "), percent(value, self.intervals.get(name)))
        return table

    def class_table(self) -> Table:
        """A row per class, in percent."""
        table = Table("class", "IoU", "accuracy", "pixels", title="classes")
        ends = self.class_intervals or (None,) * len(self.classes)
        for name, iou, end, acc, pixels in zip(
            self.classes, self.iou, ends, self.accuracy, self.confusion.sum(axis=1).tolist(), strict=True
        ):
            table.add_row(Text(name), percent(iou, end), percent(acc), f"{pixels:,}")
        return table


def evaluate(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...]) -> SegmentationMetrics:
    """Score pairs of (annotated, predicted) label maps [H, W].

    Raises ValueError where the two differ in size or a prediction is no class.
    """
    count = len(classes)
    confusion = np.zeros((count, count), dtype=np.int64)
    each: list[np.ndarray] = []
    for number, (annotated, predicted) in enumerate(pairs):
        if annotated.shape != predicted.shape:
            raise ValueError(f"image {number}: labels of {predicted.shape} pixels for a mask of {annotated.shape}")
        counted = annotated != IGNORED
        rows, columns = annotated[counted].astype(np.int64), predicted[counted].astype(np.int64)
        if rows.size and not (columns.min() >= 0 and columns.max() < count and rows.max() < count):
            raise ValueError(f"image {number}: a label that is none of the {count} classes")
        here = np.bincount(rows * count + columns, minlength=count * count).reshape(count, count)
        each.append(np.stack((here.diagonal(), here.sum(axis=1), here.sum(axis=0))))
        confusion += here
    return SegmentationMetrics(classes, confusion, np.array(each, dtype=np.int64).reshape(-1, 3, count))


def _ratios(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(part.tolist(), whole.tolist(), strict=True)]


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
