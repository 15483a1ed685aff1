"""Segmentation from end to end, as a user has it: check, train a few steps, evaluate, predict, resume."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.mask_sets import CLASSES, make_masks
from typer.testing import CliRunner

import piip
from piip.cli import app
from piip.data.report import DataError
from piip.prediction.label_map import SegmentationResult
from piip.training.loop import RunResult

SIZE = 96
SETTINGS = {"batch_size": 2, "workers": 0, "image_size": SIZE, "device": "cpu", "augmentation": {"crop": SIZE}}


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_masks(tmp_path_factory.mktemp("data") / "masks", side=SIZE)


@pytest.fixture(scope="module")
def run(masks: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    model = piip.PIIP("piip_nano_upernet")
    return model.train(masks, epochs=2, output=tmp_path_factory.mktemp("runs"), name="smoke", **SETTINGS)


def piip_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "piip", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def invoke(*arguments: object) -> Any:
    """The command in this process, which is faster."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_run_folder(run: RunResult) -> None:
    assert run.folder.parts[-2:] == ("segmentation", "smoke")
    for name in (
        "config.yaml",
        "curves.png",
        "train_batch0.png",
        "weights/best.safetensors",
        "weights/last.ckpt",
        "val/metrics.json",
        "val/confusion_matrix.png",
        "val/masks/000.png",
        "val/000.jpg",
    ):
        assert (run.folder / name).stat().st_size > 0, name
    rows = list(csv.DictReader((run.folder / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["loss_seg"]) + float(row["loss_aux"]), rel=1e-4)
    saved = json.loads((run.folder / "val" / "metrics.json").read_text())
    best = rows[run.best_epoch - 1]
    assert float(best["pixel_accuracy"]) == pytest.approx(saved["pixel_accuracy"], abs=1e-6)
    assert run.best == max(float(row["mIoU"]) for row in rows)


def test_the_model_is_adapted_to_the_data(run: RunResult) -> None:
    model = piip.PIIP(run.folder)
    assert model.names == CLASSES
    assert model.config.task == "segmentation"
    assert model.config.head.class_weights is not None
    assert model.recipe["augmentation"]["kind"] == "segmentation"


def test_val_gives_the_run_s_numbers_again(run: RunResult, masks: Path) -> None:
    metrics = piip.PIIP(run.folder).val(masks, workers=0, batch_size=2)
    assert metrics.scalars()["mIoU"] == pytest.approx(run.best, abs=1e-9)
    saved = json.loads((run.folder / "val" / "metrics.json").read_text())
    assert saved["mIoU"] == pytest.approx(run.best, abs=1e-9)


def test_windows_are_a_choice(run: RunResult, masks: Path) -> None:
    model = piip.PIIP(run.folder)
    whole = model.predict(masks / "images" / "val" / "000.png")
    sliding = model.use_windows(72).predict(masks / "images" / "val" / "000.png")
    assert not np.array_equal(whole.scores, sliding.scores)
    assert model.config.head.window_stride == 48
    assert np.array_equal(model.use_windows(None).predict(masks / "images" / "val" / "000.png").scores, whole.scores)
    with pytest.raises(ValueError, match="segmentation"):
        piip.PIIP("piip_nano_mask_rcnn").use_windows(72)
    with pytest.raises(ValueError, match="windows of 63 pixels: this model needs at least 64"):
        model.use_windows(63)
    with pytest.raises(ValueError, match="stride 128 leaves gaps"):
        model.use_windows(72, 128)


@pytest.mark.parametrize("window", [0, 72])
def test_the_narrowest_images_are_segmented(run: RunResult, window: int) -> None:
    model = piip.PIIP(run.folder).use_windows(window)
    for size in ((3, 900), (900, 3), (1, 1)):
        assert model.predict(np.zeros((*size, 3), dtype=np.uint8)).labels.shape == size


def test_written_masks_score_as_the_metrics_say(run: RunResult, masks: Path) -> None:
    saved = json.loads((run.folder / "val" / "metrics.json").read_text())
    right = counted = 0
    for path in (masks / "masks" / "val").glob("*.png"):
        annotated = np.array(Image.open(path))
        predicted = np.array(Image.open(run.folder / "val" / "masks" / path.name))
        right += int(((annotated == predicted) & (annotated != 255)).sum())
        counted += int((annotated != 255).sum())
    assert right / counted == pytest.approx(saved["pixel_accuracy"], abs=1e-9)


def test_predict_one_in_one_out_list_in_list_out(run: RunResult, masks: Path) -> None:
    model = piip.PIIP(run.folder)
    path = masks / "images" / "val" / "000.png"
    array = np.array(Image.open(path))
    one = model.predict(path)
    assert isinstance(one, SegmentationResult)
    assert one.labels.shape == array.shape[:2]
    assert sum(one.shares.values()) == pytest.approx(1.0)
    for same in (array, torch.from_numpy(array).permute(2, 0, 1)):
        assert np.array_equal(model.predict(same).labels, one.labels)
    several = model.predict([path, array])
    assert [type(entry) for entry in several] == [SegmentationResult] * 2


def test_commands(run: RunResult, masks: Path, tmp_path: Path) -> None:
    done = invoke("val", "--weights", run.folder, "--data", masks, "--output", tmp_path / "val", "--workers", 0)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "val" / "metrics.json").is_file()
    done = piip_command("predict", "--weights", run.folder, "--output", tmp_path / "out", masks / "images" / "val")
    assert done.returncode == 0, done.stderr
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["picture"] for entry in entries] == ["000.jpg", "001.jpg"]
    mask = np.array(Image.open(tmp_path / "out" / entries[0]["mask"]))
    shares = {entry["value"]: entry["share"] for entry in entries[0]["classes"]}
    assert shares == {int(v): pytest.approx((mask == v).mean(), abs=1e-6) for v in np.unique(mask)}
    assert invoke("data", "check", masks, "--json", tmp_path / "check.json").exit_code == 0
    assert json.loads((tmp_path / "check.json").read_text())["train"]["images"] == 4


def test_resume_goes_on(masks: Path, tmp_path: Path) -> None:
    model = piip.PIIP("piip_nano_upernet")
    result = model.train(masks, epochs=1, output=tmp_path, name="short", **SETTINGS)
    _, after = piip.PIIP.resume(result.folder, epochs=2)
    assert [row["epoch"] for row in after.history] == [1, 2]


def test_wrong_pairings_name_the_right_model(run: RunResult, masks: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="piip_nano_upernet"):
        piip.PIIP("piip_nano_mask_rcnn").train(masks, epochs=1, output=tmp_path)
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(DataError, match="piip_nano_mask_rcnn"):
        piip.PIIP(run.folder).val(tmp_path / "train.json")
    with pytest.raises(ValueError, match="an IoU is for detection"):
        piip.PIIP(run.folder).val(masks, iou=0.33)
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]


def test_a_wrong_mask_stops_the_training_before_it_begins(masks: Path, tmp_path: Path) -> None:
    make_masks(tmp_path / "set", side=SIZE)
    path = tmp_path / "set" / "masks" / "train" / "000.png"
    Image.fromarray(np.full((SIZE, SIZE + 16), 100, dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match=r"000\.png: 100"):
        piip.PIIP("piip_nano_upernet").train(tmp_path / "set", epochs=1, output=tmp_path / "runs", **SETTINGS)
    assert not (tmp_path / "runs").exists()
    assert invoke("data", "check", tmp_path / "set", "--json", tmp_path / "check.json").exit_code == 1
