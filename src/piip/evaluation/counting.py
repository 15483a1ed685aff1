"""Results counted by faster-coco-eval: numbers, and what draws of the images give."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from piip.evaluation.averages import COUNTED, MORE, NUMBERS, AtOverlap, Averages, OfSize
from piip.evaluation.bootstrap import drawn_aps
from piip.evaluation.ground_truth import ground_truth, image_numbers, renumbered
from piip.evaluation.judging import Judging, Sides, defined_means, interval, intervals
from piip.evaluation.matches import listed, matches_of
from piip.prediction.coco import CocoResult

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData

OF_DRAWS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""numbers that draws give"""
COCO_RANGES = 4
"""of sizes: all, small, medium, large"""


@dataclass(frozen=True, eq=False)
class Drawn:
    """AP in draws of as many images; NaN where a draw has no object that counts."""

    numbers: dict[str, np.ndarray]
    """[draws] of each of `OF_DRAWS`, and of more detections where there are such numbers"""
    classes: np.ndarray
    """[draws, classes]"""
    sizes: list[np.ndarray]
    """[draws] of each range of sizes that was asked for"""


@dataclass(frozen=True, eq=False)
class Counting:
    """One kind of shape, counted."""

    evaluator: Any
    """faster-coco-eval's, with the largest of its limits of detections"""
    averages: Averages

    @property
    def most(self) -> int:
        """Detections of a class in an image that count: COCO's 100, or what fits the data."""
        return int(self.evaluator.params.maxDets[-1])

    def drawn(self, times: np.ndarray) -> Drawn:
        """The same in draws, `times` as `Judging.times` has it."""
        numbers: dict[str, np.ndarray] = {}
        classes, sizes = np.zeros((0, 0)), []
        of_sizes = matches_of(listed(self.evaluator), self.evaluator.params.areaRng)
        for place, matches in enumerate(of_sizes):
            aps = drawn_aps(matches, times, self.most)
            if place == 0:
                classes = defined_means(aps, 1)
            if place < COCO_RANGES:
                beyond = any((one.rank >= COUNTED).any() for one in matches)
                usual = drawn_aps(matches, times, COUNTED) if beyond else aps
                numbers |= _numbers_of(usual, place, "")
                numbers |= {} if self.most == COUNTED else _numbers_of(aps, place, f"@{self.most}")
            else:
                sizes.append(defined_means(aps, (1, 2)))
        return Drawn(numbers, classes, sizes)

    def with_intervals(self, judging: Judging) -> Averages:
        """The averages, with intervals where draws are asked for."""
        if not judging.draws:
            return self.averages
        drawn = self.drawn(judging.times(len(self.evaluator.params.imgIds)))
        return replace(
            self.averages,
            intervals=intervals(drawn.numbers),
            class_intervals=tuple(map(interval, drawn.classes.T)),
            size_intervals=tuple(map(interval, drawn.sizes)),
        )


def count(results: list[CocoResult], data: CocoData, kind: str, judging: Judging) -> Counting:
    """Count the boxes ("bbox") or masks ("segm") of results; ImportError where faster-coco-eval is not installed."""
    coco, evaluator = _coco_tools()
    numbers = image_numbers(data)
    truth = coco(ground_truth(data, numbers, kind))
    found = truth.loadRes(renumbered(results, data, numbers, kind))

    def run(limits: tuple[int, ...], sides: tuple[Sides, ...] = ()) -> Any:
        counted = evaluator(truth, found, iouType=kind)
        counted.params.maxDets = list(limits)
        counted.params.areaRng = [*counted.params.areaRng, *(one.areas for one in sides)]
        counted.params.areaRngLbl = [*counted.params.areaRngLbl, *map(str, sides)]
        counted.evaluate()
        counted.accumulate()
        return counted

    usual = last = run((1, 10, COUNTED))
    usual.summarize()
    scores = {name: _defined(value) for name, value in zip(NUMBERS, usual.stats, strict=True)}
    most = most_of_a_class(data)
    if most > COUNTED or max(Counter(result["image_id"] for result in results).values(), default=0) > COUNTED:
        limit = limit_for(most)
        last = run((COUNTED, limit), judging.sides)
        scores |= {f"{name}@{limit}": value for name, value in _numbers_of_more(last.eval).items()}
    elif judging.sides:  # apart, since `summarize` takes no other sizes than COCO's
        last = run((COUNTED,), judging.sides)
    # [IoU, recall, class, object size, detections per image] -> all sizes, the last limit.
    # -1 fills all of a class without objects, so that its mean is -1 as well
    per_class = tuple(_defined(value) for value in _table(last, "precision", 0).mean(axis=(0, 1)))
    sizes = tuple(_of_size(last, data, place, judging) for place in range(len(judging.sides)))
    overlaps = _at_overlaps(last, judging) if judging.ious else ()
    return Counting(last, Averages(scores, per_class, _table(usual, "precision", 0), sizes, overlaps))


def _at_overlaps(evaluator: Any, judging: Judging) -> tuple[AtOverlap, ...]:
    """AP at the overlaps of `judging`, of all sizes and as many detections as the evaluator counts.

    Computed as in draws, the first of which has each image once.
    """
    images = len(evaluator.params.imgIds)
    times = np.concatenate((np.ones((1, images), dtype=np.int64), judging.times(images)))
    ious = np.array(judging.ious, dtype=np.float64)
    classes = [one._replace(overlaps=ious) for one in listed(evaluator)]
    (matches,) = matches_of(classes, evaluator.params.areaRng[:1])
    aps = drawn_aps(matches, times, int(evaluator.params.maxDets[-1]))
    means = defined_means(aps, 2)
    return tuple(
        AtOverlap(float(iou), _defined(means[0, place]), tuple(map(_defined, aps[0, place])),
                  interval(means[1:, place]))
        for place, iou in enumerate(ious)
    )  # fmt: skip


def most_of_a_class(data: CocoData) -> int:
    """Annotated objects of one class in one image, at most."""
    counts = (Counter(item.label for item in image.objects if not item.crowd) for image in data.images)
    return max((count for one in counts for count in one.values()), default=0)


def limit_for(objects: int) -> int:
    """Detections that are counted of images with so many objects of a class, more than `COUNTED`."""
    return max(1, -(-objects // 1000)) * 1000


def _table(evaluator: Any, name: str, size: int) -> np.ndarray:
    """[IoU, recall, class] precision, or [IoU, class] recall, of a range of sizes with the last limit."""
    table: np.ndarray = np.asarray(evaluator.eval[name])[..., size, -1]
    return table


def _of_size(evaluator: Any, data: CocoData, place: int, judging: Judging) -> OfSize:
    sides = judging.sides[place]
    precision, recall = (_table(evaluator, name, COCO_RANGES + place) for name in ("precision", "recall"))
    objects = [0] * len(data.classes)
    for entry in evaluator.cocoGt.anns.values():
        objects[entry["category_id"] - 1] += not entry["iscrowd"] and sides.areas[0] <= entry["area"] <= sides.areas[1]
    per_class = tuple(_defined(value) for value in precision.mean(axis=(0, 1)))
    recalls = tuple(_defined(value) for value in recall.mean(axis=0))
    return OfSize(sides, tuple(objects), _mean(precision), _mean(recall), per_class, recalls)


def _numbers_of(aps: np.ndarray, size: int, ending: str) -> dict[str, np.ndarray]:
    """Of [draws, T, classes] of one of COCO's ranges of sizes."""
    tables = (aps, aps[:, :1], aps[:, 5:6]) if size == 0 else (aps,)
    names = OF_DRAWS[:3] if size == 0 else OF_DRAWS[2 + size : 3 + size]
    return {name + ending: defined_means(table, (1, 2)) for name, table in zip(names, tables, strict=True)}


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


def _defined(value: float) -> float | None:
    return None if value < 0 or math.isnan(value) else float(value)


def _coco_tools() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise ImportError('COCO scores need faster-coco-eval: pip install "piip[train]"') from None
    return COCO, COCOeval_faster
