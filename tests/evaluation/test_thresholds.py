"""The score threshold of the best F1: what is right by COCO's rules, and no other threshold is better."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.evaluation.coco import evaluate_results
from piip.evaluation.matching import Judged, judged
from piip.evaluation.thresholds import Threshold, best_threshold, to_dict
from piip.prediction.coco import CocoResult


def an_image(image_id: int, *objects: tuple[float, float, int, bool]) -> CocoImage:
    """Objects of 20 x 20 pixels by (x, y, label, crowd)."""
    items = (CocoObject((x, y, x + 20, y + 20), label, None, crowd, 0, 400.0) for x, y, label, crowd in objects)
    return CocoImage(image_id, Path(f"{image_id}.jpg"), (200, 200), True, tuple(items))


def found(image_id: int, x: float, y: float, score: float, category: int = 7) -> CocoResult:
    return {"image_id": image_id, "category_id": category, "bbox": [x, y, 20, 20], "score": score}


def data_of(*images: CocoImage) -> CocoData:
    return CocoData(list(images), ("cat", "dog"), (7, 9), has_masks=False)


def random_case(seed: int) -> tuple[CocoData, list[CocoResult]]:
    chance = random.Random(seed)
    images, results = [], []
    for image_id in range(1, 9):
        objects = [(chance.uniform(0, 170), chance.uniform(0, 170), chance.randrange(2), chance.random() < 0.1)
                   for _ in range(chance.randrange(7))]  # fmt: skip
        images.append(an_image(image_id, *objects))
        for x, y, label, _ in objects * 2:
            if chance.random() < 0.7:
                shift = chance.choice((0, 3, 8))
                results.append(found(image_id, x + shift, y, round(chance.random(), 1), (7, 9)[label]))
    return data_of(*images), results


def test_each_object_is_found_once_and_a_crowd_neither_rewards_nor_punishes() -> None:
    data = data_of(an_image(1, (0, 0, 0, False), (100, 100, 0, True), (50, 0, 1, False)))
    results = [
        found(1, 1, 0, 0.9),  # right
        found(1, 0, 0, 0.8),  # better by its place, but the object is found
        found(1, 102, 100, 0.7),  # on the crowd
        found(1, 50, 0, 0.6),  # another class's object
        found(1, 60, 60, 0.95),  # nothing there
    ]
    cat, dog = judged(results, data)
    assert list(zip(cat.scores, cat.right, strict=True)) == [(0.95, False), (0.9, True), (0.8, False), (0.6, False)]
    assert (cat.objects, dog.objects, len(dog.scores)) == (1, 1, 0)


@pytest.mark.parametrize(("seed", "place"), [*((seed, 0) for seed in range(5)), (0, 2)])
def test_the_matches_are_those_of_faster_coco_eval(seed: int, place: int) -> None:
    """In the last case 12 of a detection's 20 pixels are on a crowd: an overlap of exactly 0.6."""
    data, results = random_case(seed)
    ours = judged(results, data, np.linspace(0.5, 0.95, 10)[place])
    metrics = evaluate_results(results, data, masks=False)
    for label, one in enumerate(ours):
        if not one.objects:
            continue
        counts = np.arange(1, len(one.scores) + 1)
        precision = np.cumsum(one.right) / counts
        recall = np.cumsum(one.right) / one.objects
        envelope = [max(precision[recall >= level], default=0.0) for level in np.linspace(0, 1, 101)]
        assert np.mean(envelope) == pytest.approx(metrics.box.precision[place, :, label].mean(), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    data, results = random_case(seed)
    for one in judged(results, data):
        best = best_threshold(one)
        assert best is not None

        def f1(score: float, one: Judged = one) -> float:
            kept = one.scores >= score
            return float(2 * one.right[kept].sum() / (kept.sum() + one.objects))

        assert f1(best.score) == pytest.approx(best.f1)
        assert best.f1 == pytest.approx(max(map(f1, np.linspace(0, 1, 201))))
        assert best.f1 == pytest.approx(2 * best.precision * best.recall / (best.precision + best.recall))


def test_a_threshold_lies_half_way_to_what_is_left_out() -> None:
    scores = np.array([0.75, 0.5, 0.25])
    assert best_threshold(Judged(scores, np.array([True, True, False]), 2)) == Threshold(0.375, 1.0, 1.0, 1.0)
    assert best_threshold(Judged(scores, np.array([True, True, True]), 3)) == Threshold(0.25, 1.0, 1.0, 1.0)
    assert best_threshold(Judged(scores, np.zeros(3, dtype=bool), 3)) is None
    assert best_threshold(Judged(scores, np.zeros(3, dtype=bool), 0)) is None


def test_what_is_written_and_told() -> None:
    data = data_of(an_image(1, (0, 0, 0, False), (50, 0, 1, False)))
    metrics = evaluate_results([found(1, 0, 0, 0.5)], data, masks=False)
    assert metrics.conf == {"cat": 0.5}
    cat, dog = json.loads(json.dumps(to_dict(metrics.thresholds, metrics.classes, metrics.objects)))["classes"]
    assert cat == {"class": "cat", "objects": 1, "score": 0.5, "f1": 1.0, "precision": 1.0, "recall": 1.0}
    assert dog == {"class": "dog", "objects": 1, "score": None, "f1": None, "precision": None, "recall": None}
