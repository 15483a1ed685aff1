"""COCO average precision of boxes and masks, counted by faster-coco-eval.

Ground truth comes from the checked and repaired annotations in memory (`CocoData`), not from the file. Results
carry the file's own image and category ids, so that they can go to any other COCO tool as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from piip.data.detection.outlines import rectangle
from piip.evaluation.matching import judged
from piip.evaluation.missed import caption, missed
from piip.evaluation.thresholds import Threshold, best_threshold
from piip.files import write_json
from piip.prediction.coco import CocoResult, detections_to_coco
from piip.structures import Prediction

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData

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
        kinds = {"box": self.box} | ({"mask": self.mask} if self.mask is not None else {})
        named = {f"{kind}_{name}": value for kind, part in kinds.items() for name, value in part.numbers.items()}
        return {name: value for name, value in named.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """What `metrics.json` holds; null stands for a number that no annotated object defines."""
        columns = {"box": self.box} | ({"mask": self.mask} if self.mask is not None else {})
        classes = [
            {"class": name, "objects": self.objects[label]}
            | {f"{kind}_AP": part.per_class[label] for kind, part in columns.items()}
            for label, name in enumerate(self.classes)
        ]
        return {kind: part.numbers for kind, part in columns.items()} | {"classes": classes} | missed(self.unreadable)

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON."""
        path = Path(path)
        write_json(path, self.to_dict(), indent=2)
        return path

    def summary_table(self) -> Table:
        """The numbers in percent, "-" where undefined."""
        table = Table(title="COCO average precision and recall", caption=caption(self.unreadable))
        parts = {"box": self.box} | ({"mask": self.mask} if self.mask is not None else {})
        for name in ("", *parts):
            table.add_column(name, justify="right")
        for name in self.box.numbers:
            table.add_row(name, *(_percent(part.numbers[name]) for part in parts.values()))
        return table

    def class_table(self) -> Table:
        """AP of every class in percent, "-" for a class without annotated objects."""
        table = Table(title="Average precision by class")
        table.add_column("class")
        for name in ("objects", "box AP") + (("mask AP",) if self.mask is not None else ()):
            table.add_column(name, justify="right")
        parts = [part for part in (self.box, self.mask) if part is not None]
        for label, name in enumerate(self.classes):
            values = (_percent(part.per_class[label]) for part in parts)
            table.add_row(Text(name), str(self.objects[label]), *values)
        return table


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


def evaluate_results(results: list[CocoResult], data: CocoData, *, masks: bool) -> CocoMetrics:
    """Score results in COCO's format, `masks` too if asked (all results must have a segmentation then)."""
    objects = [0] * len(data.classes)
    for image in data.images:
        for item in image.objects:
            objects[item.label] += not item.crowd
    box = _score(results, data, "bbox")
    mask = _score(results, data, "segm") if masks else None
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


def _score(results: list[CocoResult], data: CocoData, kind: str) -> Averages:
    coco, evaluator = _coco_tools()
    numbers = image_numbers(data)
    truth = coco(ground_truth(data, numbers, kind))
    found = truth.loadRes(renumbered(results, data, numbers, kind))

    def run(limits: tuple[int, ...]) -> Any:
        counted = evaluator(truth, found, iouType=kind)
        counted.params.maxDets = list(limits)
        counted.evaluate()
        counted.accumulate()
        return counted

    usual = run((1, 10, COUNTED))
    usual.summarize()
    scores = {name: _defined(value) for name, value in zip(NUMBERS, usual.stats, strict=True)}
    # [IoU, recall, class, object size, detections per image] -> all sizes, 100 detections
    precision = np.asarray(usual.eval["precision"])[:, :, :, 0, -1]
    most = _most_of_a_class(data)
    if most > COUNTED or max(Counter(result["image_id"] for result in results).values(), default=0) > COUNTED:
        limit = max(1, -(-most // 1000)) * 1000
        more = run((COUNTED, limit)).eval
        scores |= {f"{name}@{limit}": value for name, value in _numbers_of_more(more).items()}
        counted_for_classes = np.asarray(more["precision"])[:, :, :, 0, -1]
    else:
        counted_for_classes = precision
    # -1 fills all of a class without objects, so that its mean is -1 as well
    per_class = tuple(_defined(value) for value in counted_for_classes.mean(axis=(0, 1)))
    return Averages(scores, per_class, precision)


def _numbers_of_more(counted: Any) -> dict[str, float | None]:
    """The numbers of `MORE`, of the evaluator's tables with the last of its limits of detections."""
    precision, recall = np.asarray(counted["precision"])[..., -1], np.asarray(counted["recall"])[..., -1]
    sizes = (precision[..., size] for size in (1, 2, 3))  # small, medium, large; 0 is all
    tables = (precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *sizes)
    tables += tuple(recall[..., size] for size in range(4))
    return {name: _mean(table) for name, table in zip(MORE, tables, strict=True)}


def _mean(table: np.ndarray) -> float | None:
    """Of what is defined; None where nothing is."""
    defined = table[table > -1]
    return float(defined.mean()) if defined.size else None


def _most_of_a_class(data: CocoData) -> int:
    """Annotated objects of one class in one image, at most."""
    counts = (Counter(item.label for item in image.objects if not item.crowd) for image in data.images)
    return max((count for one in counts for count in one.values()), default=0)


def image_numbers(data: CocoData) -> dict[int, int]:
    """Image id -> 1, 2, ... in the order of the ids, by which COCO breaks ties between equal scores.

    The evaluator works on numbers of our own, since it takes neither negative nor very large ids, and 0 means
    "unmatched" to it; files have them all.
    """
    return {image_id: number for number, image_id in enumerate(sorted(image.id for image in data.images), start=1)}


def renumbered(results: list[CocoResult], data: CocoData, numbers: dict[int, int], kind: str) -> list[CocoResult]:
    """The results in image numbers and label + 1; ValueError for one of no image or class of `data`."""
    labels = {category_id: label for label, category_id in enumerate(data.category_ids)}
    # As long as a result has a box, the evaluator takes mask AP by object size by the area of the box: COCO means
    # the area of the mask.
    shape = "bbox" if kind == "bbox" else "segmentation"
    renumbered = []
    for result in results:
        number, label = numbers.get(result["image_id"]), labels.get(result["category_id"])
        if number is None or label is None or shape not in result:
            raise ValueError(f"no image {result['image_id']} or category {result['category_id']} in the data, or no "
                             f"{shape} in its result: {result}")  # fmt: skip
        renumbered.append(
            {"image_id": number, "category_id": label + 1, "score": result["score"], shape: result[shape]}
        )
    return renumbered


def ground_truth(data: CocoData, numbers: dict[int, int], kind: str) -> dict[str, Any]:
    """The annotations as a COCO data set, with image numbers for image ids and label + 1 for category ids."""
    truth = data.to_coco()
    category_numbers = {category_id: label for label, category_id in enumerate(data.category_ids, start=1)}
    for entry in truth["images"]:
        entry["id"] = numbers[entry["id"]]
    for entry in truth["categories"]:
        entry["id"] = category_numbers[entry["id"]]
    for entry in truth["annotations"]:
        entry["image_id"] = numbers[entry["image_id"]]
        entry["category_id"] = category_numbers[entry["category_id"]]
        if kind == "segm" and "segmentation" not in entry:  # a crowd region with a box only
            x, y, width, height = entry["bbox"]
            entry["segmentation"] = rectangle((x, y, x + width, y + height))
    return truth


def _coco_tools() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise ImportError('COCO scores need faster-coco-eval: pip install "piip[train]"') from None
    return COCO, COCOeval_faster


def _defined(value: float) -> float | None:
    return None if value < 0 or math.isnan(value) else float(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
