"""Two models on the same images: what differs, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from piip.evaluation.classification import ClassMetrics
from piip.evaluation.counting import Counting, count
from piip.evaluation.judging import CONFIDENCE, Interval, Judging, interval
from piip.evaluation.segmentation import SegmentationMetrics
from piip.evaluation.sizes import percent
from piip.prediction.coco import CocoResult

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData


class Scored(NamedTuple):
    """Some numbers of one model, and the same in draws."""

    numbers: Mapping[str, float | None]
    drawn: Mapping[str, np.ndarray]
    """[draws] of each"""


Score = Mapping[str, Scored]
"""by table, such as "box" and "box AP by class"; the first number of the first table is what a comparison is about"""


def score_of_objects(results: list[CocoResult], data: CocoData, judging: Judging, *, masks: bool) -> Score:
    """AP of boxes (and masks): all, by size and by class.

    Raises ImportError where faster-coco-eval is not installed, ValueError for results of other images or classes.
    """
    score: dict[str, Scored] = {}
    for kind, shape in {"box": "bbox", **({"mask": "segm"} if masks else {})}.items():
        counting = count(results, data, shape, judging)
        score |= _of_shape(counting, kind, data.classes, judging.times(len(data.images)))
    return score


def _of_shape(counting: Counting, kind: str, classes: Sequence[str], times: np.ndarray) -> Score:
    found, drawn = counting.averages, counting.drawn(times)
    names = [name for name in found.numbers if name in drawn.numbers]
    fitting = [name for name in names if "@" in name]  # where images have more objects than COCO counts
    numbers = {name: found.numbers[name] for name in (*fitting, *(name for name in names if name not in fitting))}
    score = {f"{kind}": Scored(numbers, drawn.numbers)}
    if found.sizes:
        sides = [f"{one.sides} pixels" for one in found.sizes]
        aps = [one.ap for one in found.sizes]
        sized = Scored(dict(zip(sides, aps, strict=True)), dict(zip(sides, drawn.sizes, strict=True)))
        score[f"{kind} AP by side"] = sized
    of_classes = dict(zip(classes, found.per_class, strict=True))
    score[f"{kind} AP by class"] = Scored(of_classes, dict(zip(classes, drawn.classes.T, strict=True)))
    return score


def score_of_labels(metrics: SegmentationMetrics | ClassMetrics, judging: Judging) -> Score:
    """The figures of a segmentor or a classifier, and those of each class: IoU or accuracy."""
    segments = isinstance(metrics, SegmentationMetrics)
    table, by_class = ("segmentation", "IoU by class") if segments else ("accuracy", "accuracy by class")
    of_classes = metrics.iou if isinstance(metrics, SegmentationMetrics) else metrics.per_class
    numbers, classes = metrics.drawn(judging.times(len(metrics.each)))
    return {
        table: Scored(metrics.scalars(), numbers),
        by_class: Scored(dict(zip(metrics.classes, of_classes, strict=True)),
                         dict(zip(metrics.classes, classes.T, strict=True))),
    }  # fmt: skip


class Difference(NamedTuple):
    """One number of both models, and its intervals; None where draws did not define it."""

    first: float
    first_interval: Interval | None
    second: float
    second_interval: Interval | None
    difference: float
    """second minus first"""
    difference_interval: Interval | None
    """of the same draws for both"""
    second_is_better: float | None
    """share of the draws"""

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        ends = self.difference_interval
        return ends is not None and (ends[0] > 0 or ends[1] < 0)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images."""

    first: str
    """what it is called"""
    second: str
    images: int
    draws: int
    tables: Mapping[str, Mapping[str, Difference]]
    """by the names of `Score`"""

    @property
    def main(self) -> Difference | None:
        """The first number of the first table; None where nothing is annotated."""
        return next(iter(next(iter(self.tables.values())).values()), None)

    @property
    def verdict(self) -> str:
        """A sentence on whether the difference is beyond chance."""
        main = self.main
        if main is None or main.difference_interval is None:
            return "Nothing is annotated, so that there is nothing to compare."
        table, number = next((table, name) for table, rows in self.tables.items() for name in rows)
        low, high = (f"{100 * end:+.1f}" for end in main.difference_interval)
        ends = f"{100 * main.difference:+.1f} points, {low} to {high} in {CONFIDENCE:.0%} of {self.draws} draws of "
        what = f"{table} {number} of second minus first: {ends}{self.images} images"
        if not main.beyond_chance:
            return f"The difference may be chance. {what}."
        better = self.second if main.difference > 0 else self.first
        return f"{better} is better, beyond chance in the choice of images. {what}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        tables = {table: {name: row._asdict() for name, row in rows.items()} for table, rows in self.tables.items()}
        about = {"first": self.first, "second": self.second, "images": self.images}
        return about | {"confidence": CONFIDENCE, "draws": self.draws, "verdict": self.verdict, "tables": tables}

    def to_tables(self) -> list[Table]:
        """In percent, with intervals."""
        return [_table(name, rows) for name, rows in self.tables.items()]


def compared(first: Score, second: Score, names: tuple[str, str], images: int, draws: int) -> Comparison:
    """Both scores side by side; they must be of the same images and draws.

    Raises ValueError where they have no table in common.
    """
    common = [table for table in first if table in second]
    if not common:
        raise ValueError(f"{names[0]} and {names[1]} are of different tasks: {next(iter(first))}, {next(iter(second))}")
    tables = {table: _rows(first[table], second[table]) for table in common}
    return Comparison(*names, images, draws, tables)


def _rows(first: Scored, second: Scored) -> dict[str, Difference]:
    rows = {}
    for name, was in first.numbers.items():
        now = second.numbers.get(name)
        if was is None or now is None:
            continue
        before, after = first.drawn[name], second.drawn[name]
        change = after - before
        defined = change[~np.isnan(change)]
        better = float(np.mean(defined > 0)) if defined.size else None
        rows[name] = Difference(was, interval(before), now, interval(after), now - was, interval(change), better)
    return rows


def _table(name: str, rows: Mapping[str, Difference]) -> Table:
    table = Table(title=f"{name}, in percent")
    for column in ("", "first", "second", "difference", "second is better in"):
        table.add_column(column, justify="right")
    for number, row in rows.items():
        ends = row.difference_interval
        change = f"{100 * row.difference:+.1f}"
        change += "" if ends is None else f" ({100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})"
        share = "-" if row.second_is_better is None else f"{row.second_is_better:.0%} of draws"
        both = (percent(row.first, row.first_interval), percent(row.second, row.second_interval))
        table.add_row(Text(number), *both, change, share)
    return table
