"""Accuracy, counted by hand."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from piip.data.classification.images import ClassData, ClassImage
from piip.evaluation.classification import evaluate
from piip.evaluation.plots import plot_matrix

CLASSES = ("a", "b", "c", "d", "e", "f", "g")
LABELS = (0, 0, 1, 2)
DATA = ClassData(Path("data"), tuple(ClassImage(Path(f"{i}.png"), label) for i, label in enumerate(LABELS)), CLASSES)


def ranking(*labels: int) -> dict[str, torch.Tensor]:
    """Probabilities that rank these labels first, in this order."""
    values = torch.zeros(len(CLASSES))
    for place, label in enumerate(labels):
        values[label] = 2.0 ** -(place + 1)
    return {"probs": values + (1 - values.sum()) * torch.eye(len(CLASSES))[labels[0]]}


PREDICTIONS = [
    ranking(0, 1, 2, 3, 4),  # right
    ranking(1, 2, 3, 4, 0, 5),  # fifth
    ranking(1, 0, 2, 3, 4),  # right
    ranking(1, 0, 3, 4, 5, 2),  # sixth: not among the five
]


def test_figures():
    metrics = evaluate(PREDICTIONS, DATA)
    assert metrics.images == 4
    assert metrics.scalars() == {"top1": 0.5, "top5": 0.75, "mean_class_accuracy": pytest.approx(0.5)}
    assert metrics.per_class == (0.5, 1.0, 0.0, None, None, None, None)
    assert metrics.confusion[:3, :3].tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]


def test_a_prediction_for_every_image():
    with pytest.raises(ValueError, match="longer"):
        evaluate(PREDICTIONS[:3], DATA)


def test_few_classes_make_top5_certain():
    data = ClassData(Path("data"), (ClassImage(Path("0.png"), 1),), ("a", "b"))
    metrics = evaluate([{"probs": torch.tensor([0.8, 0.2])}], data)
    assert (metrics.top1, metrics.top5) == (0.0, 1.0)


def test_names_of_classes_are_no_markup():
    data = ClassData(Path("data"), (ClassImage(Path("0.png"), 1),), ("a [bold]", "b"))
    metrics = evaluate([{"probs": torch.tensor([0.8, 0.2])}], data)
    console = Console(width=120, file=io.StringIO())
    console.print(metrics.class_table())
    assert console.file.getvalue().count("a [bold]") == 2


def test_files_and_tables(tmp_path):
    metrics = evaluate(PREDICTIONS, DATA)
    metrics.save(tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["top1"] == 0.5
    assert content["classes"][1] == {"class": "b", "images": 1, "accuracy": 1.0}
    assert content["classes"][6]["accuracy"] is None
    assert np.array_equal(content["confusion"], metrics.confusion)
    console = Console(width=120, record=True)
    console.print(metrics.summary_table(), metrics.class_table())
    text = console.export_text()
    assert "0.750" in text
    assert "b (1)" in text
    plot_matrix(metrics.confusion, CLASSES, tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 1000
