"""An image that breaks after the check costs an evaluation its image, which the figures, files and findings say."""

import json
from pathlib import Path

import pytest
import torch
from tests import tiny
from tests.tasks.test_evaluation_batches import SHAPES, boxes, detector, masks, photo, segmentor

import piip
from piip import tasks
from piip.api import evaluating
from piip.data.report import DataError
from piip.model import PIIPModel
from piip.prediction.options import Options
from piip.tasks import classification, detection, segmentation
from piip.training import start
from piip.training.start import start_run
from piip.training.validation import ValidationLoss


def classifier() -> PIIPModel:
    torch.manual_seed(0)
    described = piip.PIIP("piip_nano_classifier").config
    return PIIPModel(described.model_copy(update={"classes": ("dark", "light"), "category_ids": None})).eval()


def folders(root: Path) -> Path:
    for number, size in enumerate(SHAPES):
        photo(root / "val" / ("dark", "light")[number % 2] / f"{number}.png", size, number)
    return root


@pytest.mark.parametrize(
    ("make", "model", "task", "tiles"),
    [
        (boxes, detector, detection, None),
        (boxes, detector, detection, 200),
        (masks, segmentor, segmentation, None),
        (masks, segmentor, segmentation, 200),
        (folders, classifier, classification, None),
    ],
)
def test_figures_are_those_of_the_images_that_are_left_and_say_so(tmp_path, make, model, task, tiles) -> None:
    data, network = task.open_split(make(tmp_path / "data"), "val"), model()
    rest = tasks.leave_out(data, {data.images[at].path: "broken" for at in (1, 5)}, "val")
    options = Options(conf=0.0, tiles=tiles)
    expected = task.evaluate(network, rest, 2, 0, options=options)
    assert "unreadable" not in expected.to_dict()
    data.images[1].path.unlink()
    data.images[5].path.write_bytes(data.images[5].path.read_bytes()[:200])
    workers = 2 if tiles else 0  # threads there, which read ahead
    measured = task.evaluate_to_folder(network, data, tmp_path / "out", 2, workers, options=options)
    assert measured.scalars() == pytest.approx(expected.scalars(), abs=1e-6)
    gone, broken = measured.unreadable
    assert gone == f"{data.images[1].path}: there is no such file"
    assert broken.startswith(f"{data.images[5].path}: broken or truncated image")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["unreadable"] == [gone, broken]
    assert task.tables(measured)[0].caption == "without 2 images that could not be read"


def test_an_evaluation_most_of_whose_images_are_gone_is_refused(tmp_path) -> None:
    data = detection.open_split(boxes(tmp_path), "val")
    for image in data.images[:5]:
        image.path.unlink()
    with pytest.raises(DataError, match=r"5 of the 8 images of the evaluation could not be read.*0\.png: there is no"):
        detection.evaluate(detector(), data, 2, 0)


def test_val_adds_it_to_the_findings(tmp_path, monkeypatch, capsys) -> None:
    root = boxes(tmp_path / "data")

    def checked(files: list[Path], workers: int) -> dict[Path, str]:
        files[0].unlink()
        return {}

    monkeypatch.setattr(evaluating, "_undecodable", checked)
    model = piip.PIIP(detector(), device="cpu")
    metrics = model.val(root, output=tmp_path / "out", workers=0)
    assert len(metrics.unreadable) == 1
    assert "val: the figures are without 1 image that could not be read after all" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "data_findings.json").read_text())["val"]
    assert found["images"] == len(SHAPES) - 1
    assert [(one["severity"], one["kind"], one["count"]) for one in found["findings"]] == [
        ("left out", "image that could not be read when its turn came", 1)
    ]


def test_a_training_goes_on_without_it_and_says_so_once(tmp_path, monkeypatch, capsys) -> None:
    root = boxes(tmp_path / "data", [f"{number}.png" for number in range(4)])
    (root / "train").symlink_to(root / "val")
    annotations = root / "annotations"
    (annotations / "instances_train.json").write_text((annotations / "instances_val.json").read_text())

    def checked(files, settings) -> dict[Path, str]:
        (root / "val" / "3.png").unlink()
        return {}

    monkeypatch.setattr(start, "found_undecodable", checked)
    given = {"data": str(root), "epochs": 2, "batch_size": 2, "workers": 0, "log": "none", "val_loss": True}
    result, _ = start_run(tiny.model(2, masks=False), None, start.Settings(**given), tmp_path / "runs", "run")
    assert result.end == "finished"
    assert len(result.history) == 2
    assert all("box_AP" in row and row["val_loss"] > 0 for row in result.history)
    assert capsys.readouterr().err.count("val: the figures are without 1 image") == 1
    found = json.loads((result.folder / "data_findings.json").read_text())["val"]["findings"]
    assert [one["count"] for one in found if "when its turn came" in one["kind"]] == [1]
    assert len(json.loads((result.folder / "val" / "metrics.json").read_text())["unreadable"]) == 1


def test_the_validation_loss_is_that_of_the_images_that_are_left(tmp_path) -> None:
    data, model = detection.open_split(boxes(tmp_path), "val"), detector()
    settings = start.Settings(batch_size=1, workers=0, log="none")
    data.images[2].path.unlink()
    assert ValidationLoss(tasks.named("detection"), model.config, data, settings)(model) > 0
