"""Scores of label maps: what each pixel was taken for, and the overlap of every class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from piip.evaluation.missed import caption, missed
from piip.files import write_json
from piip.structures import IGNORED


@dataclass(frozen=True, eq=False)
class SegmentationMetrics:
    """All follows from the counts; classes that are neither annotated nor predicted have no IoU (None)."""

    classes: tuple[str, ...]
    confusion: np.ndarray
    """[K, K] int64: pixels by annotated (rows) and predicted class; ignored pixels are not counted"""
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
        }

    def save(self, path: Path) -> None:
        """Write `to_dict` as JSON."""
        write_json(path, self.to_dict(), indent=1)

    def summary_table(self) -> Table:
        """The three figures, in percent."""
        table = Table("", "%", title="segmentation", caption=caption(self.unreadable))
        for name, value in self.scalars().items():
            table.add_row(name.replace("_", " "), f"{100 * value:.1f}")
        return table

    def class_table(self) -> Table:
        """A row per class, in percent."""
        table = Table("class", "IoU", "accuracy", "pixels", title="classes")
        for name, iou, acc, pixels in zip(
            self.classes, self.iou, self.accuracy, self.confusion.sum(axis=1).tolist(), strict=True
        ):
            table.add_row(Text(name), _percent(iou), _percent(acc), f"{pixels:,}")
        return table


def evaluate(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...]) -> SegmentationMetrics:
    """Score pairs of (annotated, predicted) label maps [H, W].

    Raises ValueError where the two differ in size or a prediction is no class.
    """
    count = len(classes)
    confusion = np.zeros((count, count), dtype=np.int64)
    for number, (annotated, predicted) in enumerate(pairs):
        if annotated.shape != predicted.shape:
            raise ValueError(f"image {number}: labels of {predicted.shape} pixels for a mask of {annotated.shape}")
        counted = annotated != IGNORED
        rows, columns = annotated[counted].astype(np.int64), predicted[counted].astype(np.int64)
        if rows.size and not (columns.min() >= 0 and columns.max() < count and rows.max() < count):
            raise ValueError(f"image {number}: a label that is none of the {count} classes")
        confusion += np.bincount(rows * count + columns, minlength=count * count).reshape(count, count)
    return SegmentationMetrics(classes, confusion)


def _ratios(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(part.tolist(), whole.tolist(), strict=True)]


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
