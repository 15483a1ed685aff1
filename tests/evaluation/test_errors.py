"""Kinds of errors: cases of one kind each, whose cost is known; AP50 is faster-coco-eval's; labels that look wrong."""

import builtins
import random
from typing import Any

import pytest
from rich.console import Console
from tests.evaluation.test_thresholds import an_image, data_of, found, random_case

from piip.evaluation.coco import evaluate_results
from piip.evaluation.errors import KINDS, error_table, errors_of
from piip.prediction.coco import CocoResult
from piip.tasks import detection

TWO = data_of(an_image(1, (0, 0, 0, False), (100, 100, 0, False)))
"""two cats; with one of them found AP50 is 51 of the 101 recalls, as 0 is one of them"""
HALF = 51 / 101
RIGHT = found(1, 0, 0, 0.9)


@pytest.mark.parametrize(
    ("kind", "wrong", "before", "gain"),
    [
        ("missed", [], HALF, 1 - HALF),
        ("localisation", [found(1, 110, 100, 0.8)], HALF, 1 - HALF),  # overlap 1/3
        ("class", [found(1, 100, 100, 0.8, category=9)], HALF, 1 - HALF),
        ("background", [found(1, 50, 150, 0.95), found(1, 100, 100, 0.5)], 2 / 3, 1 / 3),
        ("duplicate", [found(1, 1, 0, 0.85), found(1, 100, 100, 0.5)], (51 + 50 * 2 / 3) / 101, 50 / 3 / 101),
    ],
)
def test_cases_of_one_kind(kind: str, wrong: list[CocoResult], before: float, gain: float) -> None:
    box = errors_of([RIGHT, *wrong], TWO, masks=False)["box"]
    assert box["AP50"] == pytest.approx(before)
    assert box["cost"][kind] == pytest.approx(gain)
    assert box["count"] == {name: int(name == kind) for name in KINDS}


@pytest.mark.parametrize("seed", range(3))
def test_ap_is_that_of_faster_coco_eval(seed: int) -> None:
    data, results = random_case(seed)
    random.Random(seed).shuffle(data.images)
    box = errors_of(results, data, masks=False)["box"]
    assert box["AP50"] == pytest.approx(evaluate_results(results, data, masks=False).box.map50, abs=1e-9)


def test_labels_that_may_be_wrong() -> None:
    data = data_of(an_image(30, (0, 0, 0, False)), an_image(4, (10, 10, 0, False)))
    results = [found(30, 0, 0, 0.8, category=9), found(4, 10, 10, 0.9), found(4, 100, 50, 0.7), found(4, 50, 9, 0.2)]
    first, second = errors_of(results, data, masks=False)["label_errors"]
    assert (first["what"], first["image"], first["annotated"], first["found"]) == (
        "wrong class",
        "30.jpg",
        "cat",
        "dog",
    )
    assert (second["what"], second["image_id"], second["annotated"]) == ("not annotated", 4, None)
    assert second["bbox"] == [100, 50, 20, 20]


def test_the_table_and_what_is_said_without_the_library(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    metrics = evaluate_results([RIGHT], TWO, masks=False)
    full = detection._with_errors(metrics, [RIGHT], TWO)
    assert full.errors is not None
    console = Console(width=100, record=True, quiet=False)
    console.print(error_table(full.errors))
    assert "missed" in console.export_text()
    assert len(detection.tables(full)) == 3
    usual = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "hotcoco":
            raise ImportError
        return usual(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert detection._with_errors(metrics, [RIGHT], TWO).errors is None
    assert 'pip install "piip[train]"' in " ".join(capsys.readouterr().err.split())


def test_names_that_hands_know() -> None:
    metrics = evaluate_results([RIGHT], TWO, masks=False)
    box = metrics.box
    assert box.map == box.ap == pytest.approx(HALF)
    assert metrics.seg is metrics.mask
    assert (box.map50, box.map75, box.ar) == (box.numbers["AP50"], box.numbers["AP75"], box.numbers["AR100"])
    assert list(box.maps == box.ap) == [True, False]
