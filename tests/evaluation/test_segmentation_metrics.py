import json

import numpy as np
import pytest
from rich.console import Console

from piip.evaluation.plots import plot_matrix
from piip.evaluation.segmentation import evaluate
from piip.structures import IGNORED

CLASSES = ("a", "b", "c", "d")


def test_scores_by_hand():
    annotated = np.array([[0, 0, 0, 1], [1, 1, IGNORED, 2]], dtype=np.int16)
    predicted = np.array([[0, 0, 1, 1], [1, 0, 2, 1]])
    metrics = evaluate([(annotated, predicted)], CLASSES)
    assert metrics.confusion.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert metrics.iou == [2 / 4, 2 / 5, 0.0, None]
    assert metrics.accuracy == [2 / 3, 2 / 3, 0.0, None]
    assert metrics.mean_iou == pytest.approx((0.5 + 0.4 + 0.0) / 3)
    assert metrics.pixel_accuracy == pytest.approx(4 / 7)
    assert (metrics.miou, metrics.macc, metrics.aacc) == pytest.approx((0.3, 4 / 9, 4 / 7))
    assert metrics.ious == {"a": 2 / 4, "b": 2 / 5, "c": 0.0, "d": None}
    assert metrics.scalars() == {
        "mIoU": pytest.approx(0.3),
        "pixel_accuracy": pytest.approx(4 / 7),
        "mean_accuracy": pytest.approx(4 / 9),
    }


def test_a_class_that_is_only_predicted_counts_as_missed_overlap():
    metrics = evaluate([(np.zeros((2, 2), dtype=np.int16), np.array([[0, 0], [0, 3]]))], CLASSES)
    assert metrics.iou == [0.75, None, None, 0.0]
    assert metrics.mean_accuracy == 0.75


def test_images_add_up_whatever_their_order():
    generator = np.random.default_rng(0)
    pairs = [tuple(generator.integers(0, 4, (2, 5, 7))) for _ in range(6)]
    whole = evaluate([(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))], CLASSES)
    assert np.array_equal(evaluate(pairs[::-1], CLASSES).confusion, whole.confusion)


def test_nothing_annotated_gives_no_figures():
    metrics = evaluate([(np.full((3, 3), IGNORED), np.zeros((3, 3), dtype=int))], CLASSES)
    assert metrics.scalars() == {}
    assert metrics.iou == [None] * 4


@pytest.mark.parametrize(("predicted", "message"), [(np.full((2, 2), 4), "none of the 4"), (np.zeros((2, 3)), "2, 3")])
def test_impossible_predictions_are_refused(predicted, message):
    with pytest.raises(ValueError, match=message):
        evaluate([(np.zeros((2, 2), dtype=int), predicted)], CLASSES)


def test_files_and_tables(tmp_path):
    metrics = evaluate([(np.array([[0, 1]]), np.array([[0, 2]]))], ("a [bold]", "b", "c", "d"))
    metrics.save(tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["classes"]["a [bold]"] == {"iou": 1.0, "accuracy": 1.0, "pixels": 1}
    assert content["classes"]["d"]["iou"] is None
    plot_matrix(metrics.confusion, metrics.classes, tmp_path / "confusion.png", percent=True)
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    console = Console(width=100, record=True, quiet=True)
    console.print(metrics.class_table(), metrics.summary_table())
