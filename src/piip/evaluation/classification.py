"""Accuracy of a classifier: over all images, per class, and what is taken for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from piip.data.classification.images import ClassData
from piip.evaluation.judging import Interval, Judging, defined_means, interval, intervals, intervals_to_dict
from piip.evaluation.missed import caption, missed
from piip.files import write_json
from piip.structures import Prediction

TOP = 5


@dataclass(frozen=True, eq=False)
class ClassMetrics:
    """Scores of one model on one set of classified images."""

    classes: tuple[str, ...]
    confusion: np.ndarray
    """[K, K] int64: images of class i (rows) taken for class j (columns)"""
    top5_hits: int
    """images whose class is among the five most probable"""
    each: np.ndarray
    """[images, 3] int64: of each image its label, and 1 where its class is the most probable, and among the five"""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """of the three figures, where intervals were asked for: what 95 % of draws of as many images give"""
    class_intervals: tuple[Interval | None, ...] = ()
    """of `per_class`"""
    unreadable: tuple[str, ...] = ()
    """files that could not be read when their turn came, without which the counts are, and what is wrong with them"""

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of the images whose most probable class is right."""
        return float(np.trace(self.confusion)) / self.images

    @property
    def top5(self) -> float:
        """Share of the images whose class is among the five most probable; 1 where there are five classes or fewer."""
        return self.top5_hits / self.images

    @cached_property
    def per_class(self) -> tuple[float | None, ...]:
        """Share of each class's images that is recognised, in label order; None for a class without images."""
        hits, counts = np.diagonal(self.confusion), self.confusion.sum(axis=1)
        return tuple(float(hit / count) if count else None for hit, count in zip(hits, counts, strict=True))

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of `per_class` over the classes with images."""
        return float(np.mean([accuracy for accuracy in self.per_class if accuracy is not None]))

    def drawn(self, times: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The three figures, [draws] each, and the classes', [draws, K], in draws as `Judging.times` has them."""
        label, first, among = self.each.T
        of_class = np.eye(len(self.classes), dtype=np.int64)[label]
        with np.errstate(invalid="ignore"):
            classes = (times @ (of_class * first[:, None])) / (times @ of_class).astype(np.float64)
        count = max(1, len(self.each))
        numbers = {"top1": times @ first / count, "top5": times @ among / count}
        return numbers | {"mean_class_accuracy": defined_means(classes, 1)}, classes

    def with_intervals(self, judging: Judging) -> ClassMetrics:
        """The same, with intervals where draws are asked for; ValueError where object sizes are."""
        judging.refuse_what_objects_have("classification")
        if not judging.draws:
            return self
        numbers, classes = self.drawn(judging.times(len(self.each)))
        return replace(self, intervals=intervals(numbers), class_intervals=tuple(map(interval, classes.T)))

    def scalars(self) -> dict[str, float]:
        """The figures for results.csv."""
        return {"top1": self.top1, "top5": self.top5, "mean_class_accuracy": self.mean_class_accuracy}

    def to_dict(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        counts = self.confusion.sum(axis=1).tolist()
        rows = zip(self.classes, counts, self.per_class, strict=True)
        return {
            "images": self.images,
            **self.scalars(),
            "classes": [{"class": name, "images": count, "accuracy": value} for name, count, value in rows],
            "confusion": self.confusion.tolist(),
            **missed(self.unreadable),
            **intervals_to_dict(self.intervals, self.class_intervals, self.classes),
        }

    def save(self, path: Path) -> None:
        """Write `to_dict` as JSON."""
        write_json(path, self.to_dict(), indent=2)

    def summary_table(self) -> Table:
        """The figures over all images, for `rich.print`."""
        titles, below = ("images", "top-1", "top-5", "mean class accuracy"), caption(self.unreadable)
        table = Table(*titles, title="accuracy", caption=below)
        cells = (_cell(value, self.intervals.get(name)) for name, value in self.scalars().items())
        table.add_row(str(self.images), *cells)
        return table

    def class_table(self) -> Table:
        """Accuracy of each class, for `rich.print`."""
        table = Table("class", "images", "accuracy", "mostly taken for", title="accuracy per class")
        ends = self.class_intervals or (None,) * len(self.classes)
        for label, (name, accuracy) in enumerate(zip(self.classes, self.per_class, strict=True)):
            row = self.confusion[label].copy()
            count, row[label] = int(row.sum()), 0
            other = f"{self.classes[int(row.argmax())]} ({row.max()})" if row.max() else ""
            table.add_row(Text(name), str(count), _cell(accuracy, ends[label]), Text(other))
        return table


def evaluate(predictions: Iterable[Prediction], data: ClassData) -> ClassMetrics:
    """Accuracy of predictions for all images of `data`, in its order; ValueError if there are not as many."""
    count = len(data.classes)
    confusion = np.zeros((count, count), dtype=np.int64)
    each: list[tuple[int, bool, bool]] = []
    for prediction, image in zip(predictions, data.images, strict=True):
        ranked = prediction["probs"].topk(min(TOP, count)).indices.tolist()
        confusion[image.label, ranked[0]] += 1
        each.append((image.label, image.label == ranked[0], image.label in ranked))
    table = np.array(each, dtype=np.int64).reshape(-1, 3)
    return ClassMetrics(data.classes, confusion, int(table[:, 2].sum()), table)


def _cell(value: float | None, ends: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + ("" if ends is None else f" ({ends[0]:.3f} to {ends[1]:.3f})")
