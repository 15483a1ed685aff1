"""Classification from end to end, as a user has it: train a few steps, evaluate, predict, resume, check the data."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import piip
from piip.cli import app
from piip.data.report import DataError
from piip.data.synthetic import make_scenes
from piip.prediction.probabilities import ClassificationResult
from piip.training.loop import RunResult
from piip.training.report import Report

CLASSES = ("dark", "light")
SETTINGS = {"batch_size": 4, "workers": 0, "device": "cpu", "lr": 3e-3, "warmup_iters": 0, "ema": None}


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and light pictures of noise, 8 of each for training, 3 for test; they are told apart in a few steps."""
    root = tmp_path_factory.mktemp("data") / "shades"
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for low, name in ((0, "dark"), (160, "light")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(low, low + 90, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def run(shades: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    model = piip.PIIP("piip_nano_classifier")
    return model.train(shades, epochs=3, output=tmp_path_factory.mktemp("runs"), name="smoke", **SETTINGS)


def test_it_learns_and_the_run_folder_is_whole(run: RunResult) -> None:
    assert run.folder.parts[-2:] == ("classification", "smoke")
    for name in (
        "config.yaml",
        "results.csv",
        "curves.png",
        "train_batch0.png",
        "weights/best.safetensors",
        "weights/last.ckpt",
        "val/metrics.json",
        "val/predictions.json",
        "val/confusion_matrix.png",
    ):
        assert (run.folder / name).stat().st_size > 0, name
    rows = list(csv.DictReader((run.folder / "results.csv").open()))
    assert float(rows[2]["loss"]) == pytest.approx(float(rows[2]["loss_cls"]), rel=1e-6)
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])
    assert run.best == pytest.approx(max(float(row["top1"]) for row in rows))
    assert run.best > 0.8
    predictions = json.loads((run.folder / "val" / "predictions.json").read_text())
    assert [row["class"] for row in predictions] == ["dark"] * 3 + ["light"] * 3
    assert set(predictions[0]["top"][0]) == {"label", "name", "probability"}


def test_val_gives_the_run_s_numbers_again(run: RunResult, shades: Path, tmp_path: Path) -> None:
    model = piip.PIIP(run.folder)
    assert model.names == CLASSES
    metrics = model.val(shades, split="test", output=tmp_path, workers=0, batch_size=3)
    assert metrics.scalars()["top1"] == pytest.approx(run.best, abs=1e-9)
    assert json.loads((tmp_path / "metrics.json").read_text())["images"] == 6


def test_predict_one_in_one_out_list_in_list_out(run: RunResult, shades: Path, tmp_path: Path) -> None:
    model = piip.PIIP(run.folder)
    file = shades / "test" / "light" / "0.png"
    result = model.predict(file)
    assert isinstance(result, ClassificationResult)
    assert result.top1 == "light"
    assert result.probs.sum().item() == pytest.approx(1.0, abs=1e-5)
    from_array, grey = model.predict([np.asarray(Image.open(file)), torch.full((3, 9, 30), 0.1)], save=tmp_path)
    torch.testing.assert_close(from_array.probs, result.probs)
    assert grey.top1 == "dark"
    assert len(list(tmp_path.glob("*.jpg"))) == 2


def test_resume_goes_on_as_if_never_stopped(
    run: RunResult, shades: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report.step

    def stop_in_epoch_2(self: Report, epoch: int, step: int, values: Any) -> None:
        report(self, epoch, step, values)
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Report, "step", stop_in_epoch_2)
    stopped = piip.PIIP("piip_nano_classifier").train(shades, epochs=3, output=tmp_path, name="again", **SETTINGS)
    monkeypatch.undo()
    assert (stopped.end, [row["epoch"] for row in stopped.history]) == ("stopped", [1])
    _, result = piip.PIIP.resume(stopped.folder)
    assert result.end == "finished"
    straight, again = (load_file(folder / "weights" / "last.safetensors") for folder in (run.folder, result.folder))
    assert all(torch.equal(straight[key], again[key]) for key in straight)
    assert [row["top1"] for row in result.history] == [row["top1"] for row in run.history]


def test_command_line(run: RunResult, shades: Path, tmp_path: Path) -> None:
    def piip_command(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    said = piip_command("val", "--weights", run.folder, "--data", shades, "--split", "test", "--workers", 0,
                        "--output", tmp_path / "val")  # fmt: skip
    assert "top-1" in said
    piip_command("predict", shades / "test" / "dark", "--weights", run.folder, "--output", tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["top"][0]["name"] for row in rows] == ["dark"] * 3
    assert (tmp_path / "out" / rows[0]["picture"]).is_file()
    said = piip_command("data", "check", shades, "--json", tmp_path / "check.json")
    assert "16 images, 2 classes" in said
    assert json.loads((tmp_path / "check.json").read_text())["train"]["class_counts"] == {"dark": 8, "light": 8}


def test_wrong_pairings_name_the_right_model(run: RunResult, shades: Path, tmp_path: Path) -> None:
    scenes = make_scenes(tmp_path / "scenes", train=1, val=1, seed=1, size=(64, 64))
    message = (
        "is a classification model and needs .*; for this data use a detection model, for example piip_nano_mask_rcnn"
    )
    with pytest.raises(DataError, match=message):
        piip.PIIP("piip_nano_classifier").train(scenes, output=tmp_path)
    with pytest.raises(DataError, match=message):
        piip.PIIP(run.folder).val(scenes)
    with pytest.raises(DataError, match="for this data use a classification model, for example piip_nano_classifier"):
        piip.PIIP("piip_nano_mask_rcnn").train(shades, output=tmp_path)
    with pytest.raises(ValueError, match="class_weights are for segmentation"):
        piip.PIIP("piip_nano_classifier").train(shades, output=tmp_path, class_weights="balanced")
