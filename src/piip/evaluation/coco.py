"""COCO average precision of boxes and masks, counted by faster-coco-eval.

Ground truth comes from the checked and repaired annotations in memory (`CocoData`), not from the file. Results
carry the file's own image and category ids, so that they can go to any other COCO tool as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from piip.evaluation.averages import COUNTED, NOTE_ON_COUNTING, NUMBERS, OFFICIAL, Averages
from piip.evaluation.counting import count
from piip.evaluation.judging import CONFIDENCE, PLAIN, Judging
from piip.evaluation.matching import judged
from piip.evaluation.missed import caption, missed
from piip.evaluation.overlaps import overlap_table, overlaps_to_dict
from piip.evaluation.sizes import percent, size_table, sizes_to_dict
from piip.evaluation.thresholds import Threshold, best_threshold
from piip.files import write_json
from piip.prediction.coco import CocoResult, detections_to_coco
from piip.structures import Prediction

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData

__all__ = [
    "COUNTED",
    "NOTE_ON_COUNTING",
    "NUMBERS",
    "OFFICIAL",
    "Averages",
    "CocoMetrics",
    "CocoResult",
    "detections_to_coco",
    "evaluate",
    "evaluate_results",
    "to_coco_results",
]


@dataclass(frozen=True, eq=False)
class CocoMetrics:
    """Scores of one model on one set of annotated images."""

    classes: tuple[str, ...]
    objects: tuple[int, ...]
    """annotated objects of each class, crowds not counted"""
    box: Averages
    mask: Averages | None
    """None where the model or the annotations have no masks"""
    thresholds: tuple[Threshold | None, ...] = ()
    """of each class the score threshold with the best F1, by boxes; None for a class of which nothing was found"""
    unreadable: tuple[str, ...] = ()
    """files that could not be read when their turn came, without which the numbers are, and what is wrong with them"""
    errors: Mapping[str, Any] | None = None
    """what each kind of error costs and labels that may be wrong, see `evaluation.errors`; of an evaluation that writes
    files"""

    @property
    def seg(self) -> Averages | None:
        """`mask`, as other libraries call it."""
        return self.mask

    @property
    def conf(self) -> dict[str, float]:
        """The thresholds by class name, for `predict(conf=metrics.conf)`."""
        found = zip(self.classes, self.thresholds, strict=True)
        return {name: best.score for name, best in found if best is not None}

    def scalars(self) -> dict[str, float]:
        """All defined numbers by name: box_AP, box_AP50, ..., mask_ARl."""
        named = {f"{kind}_{name}": value for kind, part in self.parts.items() for name, value in part.numbers.items()}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def parts(self) -> dict[str, Averages]:
        """ "box", and "mask" where there are masks."""
        return {"box": self.box} | ({"mask": self.mask} if self.mask is not None else {})

    def to_dict(self) -> dict[str, Any]:
        """What `metrics.json` holds; null stands for a number that no annotated object defines."""
        classes = [
            {"class": name, "objects": self.objects[label]}
            | {f"{kind}_AP": part.per_class[label] for kind, part in self.parts.items()}
            | {f"{kind}_AP_interval": part.class_intervals[label] for kind, part in self._with_intervals.items()}
            for label, name in enumerate(self.classes)
        ]
        written: dict[str, Any] = {kind: part.numbers for kind, part in self.parts.items()} | {"classes": classes}
        if self._with_intervals:
            ends = {kind: dict(part.intervals) for kind, part in self._with_intervals.items()}
            written["intervals"] = {"confidence": CONFIDENCE, **ends}
        if self.box.sizes:
            written["sizes"] = {kind: sizes_to_dict(part, self.classes) for kind, part in self.parts.items()}
        if self.box.overlaps:
            written["ious"] = {kind: overlaps_to_dict(part, self.classes) for kind, part in self.parts.items()}
        return written | missed(self.unreadable)

    @property
    def _with_intervals(self) -> dict[str, Averages]:
        return {kind: part for kind, part in self.parts.items() if part.class_intervals}

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON."""
        path = Path(path)
        write_json(path, self.to_dict(), indent=2)
        return path

    def summary_table(self) -> Table:
        """The numbers in percent, "-" where undefined, with their intervals where there are any."""
        what = f", and what {CONFIDENCE:.0%} of draws of as many images give" if self._with_intervals else ""
        table = Table(title=f"COCO average precision and recall{what}", caption=caption(self.unreadable))
        for name in ("", *self.parts):
            table.add_column(name, justify="right")
        for name in self.box.numbers:
            cells = (percent(part.numbers[name], part.intervals.get(name)) for part in self.parts.values())
            table.add_row(name, *cells)
        return table

    def class_table(self) -> Table:
        """AP of every class in percent, "-" for a class without annotated objects."""
        table = Table(title="Average precision by class")
        table.add_column("class")
        for name in ("objects", *(f"{kind} AP" for kind in self.parts)):
            table.add_column(name, justify="right")
        for label, name in enumerate(self.classes):
            ends = (part.class_intervals[label] if part.class_intervals else None for part in self.parts.values())
            values = map(percent, (part.per_class[label] for part in self.parts.values()), ends)
            table.add_row(Text(name), str(self.objects[label]), *values)
        return table

    def size_tables(self) -> list[Table]:
        """AP and AR by the size limits that were asked for, a table for boxes and one for masks."""
        return [size_table(part, self.classes, kind) for kind, part in self.parts.items() if part.sizes]

    def overlap_tables(self) -> list[Table]:
        """AP at the overlaps that were asked for, a table for boxes and one for masks."""
        return [overlap_table(part, self.classes, kind) for kind, part in self.parts.items() if part.overlaps]


def evaluate(predictions: Iterable[Prediction], data: CocoData) -> CocoMetrics:
    """Score `predictions`, one per image of `data` and in its order.

    Predictions are read once, one after the other, and only their run lengths are kept: give a generator for
    a large set, whose dense masks would not fit into memory. Masks are scored where every prediction and the
    annotations have them.

    Raises:
        ValueError: another number of predictions than images, or one that `to_coco_results` refuses
        ImportError: faster-coco-eval is not installed
    """
    with_masks = data.has_masks

    def watched() -> Iterable[Prediction]:
        nonlocal with_masks
        for prediction in predictions:
            with_masks = with_masks and not prediction.keys().isdisjoint(("masks", "mask_probabilities"))
            yield prediction

    results = to_coco_results(watched(), data)
    return evaluate_results(results, data, masks=with_masks)


def evaluate_results(
    results: list[CocoResult], data: CocoData, *, masks: bool, judging: Judging = PLAIN
) -> CocoMetrics:
    """Score results in COCO's format, `masks` too if asked (all results must have a segmentation then).

    `judging`: size limits of one's own, and draws from which intervals come.
    """
    objects = [0] * len(data.classes)
    for image in data.images:
        for item in image.objects:
            objects[item.label] += not item.crowd
    box = count(results, data, "bbox", judging).with_intervals(judging)
    mask = count(results, data, "segm", judging).with_intervals(judging) if masks else None
    thresholds = tuple(map(best_threshold, judged(results, data)))
    return CocoMetrics(tuple(data.classes), tuple(objects), box, mask, thresholds)


def to_coco_results(predictions: Iterable[Prediction], data: CocoData) -> list[CocoResult]:
    """`predictions`, one per image of `data` and in its order, in COCO's result format.

    Raises:
        ValueError: another number of predictions than images, a label the data does not have, a box or score
            that is not finite, masks of another size than the image
    """
    results: list[CocoResult] = []
    count = 0
    for count, prediction in enumerate(predictions, start=1):
        if count > len(data.images):
            raise ValueError(f"more predictions than the {len(data.images)} images of the data")
        image = data.images[count - 1]
        masks = prediction.get("masks")
        if masks is not None and tuple(masks.shape[1:]) != tuple(image.size):
            raise ValueError(f"image {image.id}: masks of {tuple(masks.shape[1:])} pixels on an image of {image.size}")
        results += detections_to_coco(prediction, image.id, data.category_ids, image.size)
    if count < len(data.images):
        raise ValueError(f"{count} predictions for {len(data.images)} images")
    return results
