"""Detection from end to end, as a user has it: train a few steps, evaluate, predict, resume, by Python and command."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import piip
from piip import cli
from piip.data.report import DataError
from piip.data.synthetic import CLASSES, make_scenes
from piip.structures import Batch
from piip.training.loop import RunResult
from piip.weights.files import WeightsError

SIZE = 64
SETTINGS = {"batch_size": 2, "workers": 0, "image_size": SIZE, "device": "cpu"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", train=4, val=3, seed=1, size=(SIZE, SIZE))


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    model = piip.PIIP("piip_nano_mask_rcnn")
    runs, all_found = tmp_path_factory.mktemp("runs"), {"score_threshold": 0.0}  # four steps teach little
    return model.train(scenes, epochs=2, output=runs, name="smoke", head=all_found, **SETTINGS)


def piip_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "piip", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_run_folder_holds_what_the_readme_promises(run: RunResult) -> None:
    assert run.folder.parts[-2:] == ("detection", "smoke")
    for name in (
        "config.yaml",
        "results.csv",
        "curves.png",
        "train_batch0.png",
        "weights/best.safetensors",
        "weights/last.safetensors",
        "weights/last.ckpt",
        "val/metrics.json",
        "val/predictions.json",
        "val/thresholds.json",
        "val/box_precision_recall.png",
        "val/mask_precision_recall.png",
        "val/confusion_matrix.png",
    ):
        assert (run.folder / name).stat().st_size > 0, name
    rows = list(csv.DictReader((run.folder / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    losses = [
        float(rows[1][name]) for name in ("loss", "loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask")
    ]
    assert all(np.isfinite(losses))
    assert losses[0] == pytest.approx(sum(losses[1:]), rel=1e-4)
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    saved = json.loads((run.folder / "val" / "metrics.json").read_text())
    assert float(rows[run.best_epoch - 1]["box_AP"]) == pytest.approx(saved["box"]["AP"], abs=1e-6)


def test_the_model_knows_the_data_s_classes(run: RunResult) -> None:
    model = piip.PIIP(run.folder)
    assert model.names == CLASSES
    assert model.config.category_ids == tuple(range(1, len(CLASSES) + 1))
    assert model.config.head.masks


def test_the_best_weights_hold_the_thresholds_that_were_measured(run: RunResult) -> None:
    measured = json.loads((run.folder / "val" / "thresholds.json").read_text())["classes"]
    assert piip.PIIP(run.folder).config.thresholds == tuple(row["score"] for row in measured)


def test_val_gives_the_run_s_numbers_again(run: RunResult, scenes: Path) -> None:
    metrics = piip.PIIP(run.folder).val(scenes, workers=0, batch_size=2)
    assert metrics.scalars()["box_AP"] == pytest.approx(run.best, abs=1e-9)
    assert metrics.mask is not None


def test_predict_one_in_one_out_list_in_list_out(run: RunResult, scenes: Path) -> None:
    model = piip.PIIP(run.folder)
    path = next((scenes / "val").glob("*.png"))
    array = np.array(Image.open(path))
    one = model.predict(path, conf=0.0)
    assert len(one) > 0
    assert one.masks.shape == (len(one), SIZE, SIZE)
    for same in (str(path), array, Image.open(path), torch.from_numpy(array).permute(2, 0, 1)):
        assert torch.equal(model.predict(same, conf=0.0).boxes, one.boxes)
    several = model.predict([path, array], conf=0.0)
    assert isinstance(several, list)
    assert torch.equal(several[1].scores, one.scores)
    assert len(model.predict(scenes / "val")) == 3


def test_saved_model_loads_and_predicts_the_same(run: RunResult, scenes: Path, tmp_path: Path) -> None:
    model = piip.PIIP(run.folder)
    path = next((scenes / "val").glob("*.png"))
    model.save(tmp_path / "saved")
    again = piip.PIIP(tmp_path / "saved")
    assert torch.equal(again.predict(path, conf=0.0).scores, model.predict(path, conf=0.0).scores)


def test_fine_tuning_keeps_what_fits(run: RunResult, tmp_path: Path, scenes: Path) -> None:
    annotations = scenes / "annotations" / "instances_train.json"
    content = json.loads(annotations.read_text())
    content["categories"] = content["categories"][:2]
    ids = {category["id"] for category in content["categories"]}
    content["annotations"] = [item for item in content["annotations"] if item["category_id"] in ids]
    fewer = tmp_path / "train" / "_annotations.coco.json"
    fewer.parent.mkdir()
    fewer.write_text(json.dumps(content))
    for image in (scenes / "train").glob("*.png"):
        (fewer.parent / image.name).write_bytes(image.read_bytes())
    model = piip.PIIP(run.folder)
    before = model.model.state_dict()["backbone.branches.0.vit.blocks.0.mlp.fc1.weight"].clone()
    model.train(tmp_path, epochs=1, output=tmp_path / "runs", lr=1e-9, **SETTINGS)
    assert model.names == CLASSES[:2]
    after = model.model.state_dict()["backbone.branches.0.vit.blocks.0.mlp.fc1.weight"]
    assert torch.allclose(before, after, atol=1e-6)


def test_boxes_only_data_makes_a_faster_rcnn(scenes: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        content = json.loads((scenes / "annotations" / f"instances_{split}.json").read_text())
        for item in content["annotations"]:
            item.pop("segmentation")
        folder = tmp_path / "boxes" / ("valid" if split == "val" else split)
        folder.mkdir(parents=True)
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
        for image in (scenes / split).glob("*.png"):
            (folder / image.name).write_bytes(image.read_bytes())
    model = piip.PIIP("piip_nano_mask_rcnn")
    result = model.train(tmp_path / "boxes", epochs=1, output=tmp_path / "runs", **SETTINGS)
    assert model.config.head.masks is False
    assert "loss_mask" not in result.history[0]
    assert "masks" not in model.model.predict(Batch(torch.zeros(1, 3, SIZE, SIZE)))[0]


def test_commands_evaluate_and_predict(run: RunResult, scenes: Path, tmp_path: Path) -> None:
    done = piip_command("val", "--weights", run.folder, "--data", scenes, "--output", tmp_path / "val", "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert "AR100" in done.stdout
    results = json.loads((tmp_path / "val" / "predictions.json").read_text())
    assert results
    assert {item["category_id"] for item in results} <= set(range(1, len(CLASSES) + 1))

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    done = piip_command(
        "predict", "--weights", run.folder, "--output", tmp_path / "out", "--conf", 0.0, scenes / "val", broken
    )
    assert done.returncode == 1
    assert "broken.png" in done.stderr
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(entries) == 3
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 3


def test_resume_of_a_finished_run_trains_on(run: RunResult, scenes: Path, tmp_path: Path) -> None:
    model = piip.PIIP("piip_nano_mask_rcnn")
    result = model.train(scenes, epochs=1, output=tmp_path, name="short", **SETTINGS)
    done = piip_command("train", "--resume", result.folder, "--lr", 1, "--name", "other")
    assert (done.returncode, "--name: a resumed run keeps its own" in done.stderr) == (2, True)
    before = (result.folder / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match="epochs: Input should be greater than 0"):
        piip.PIIP.resume(result.folder, epochs=0)
    assert (result.folder / "config.yaml").read_bytes() == before
    resumed, after = piip.PIIP.resume(result.folder, epochs=2, workers=0, device="cpu")
    assert [row["epoch"] for row in after.history] == [1, 2]
    assert resumed.names == CLASSES
    with pytest.raises(ValueError, match="1 epochs: .* has done 2 already"):
        piip.PIIP.resume(result.folder, epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "piip_nano_mask_rcn", "--data", "x"], "piip_nano_mask_rcnn"),
        (["train", "--model", "piip_nano_mask_rcnn"], "--data"),
        (["predict", "--weights", "nowhere", "x.png"], "nowhere"),
        (["val", "--weights", "nowhere", "--data", "x"], "nowhere"),
        (["data", "check", "nowhere"], "nowhere"),
        (["train", "--resume", "nowhere"], "nowhere"),
        (["convert", "nowhere.pth", "x"], "nowhere.pth: no such file"),
        (["benchmark", "piip_nano_dino", "--device", "foo"], "device 'foo' is not available here"),
        (["predict", "x.png", "--weights", "y", "--model", "foo"], "only with --weights official"),
        (["info", "piip_nano_mask_rcn"], "piip_nano_mask_rcnn"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["piip", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error.replace("\n", "")
    assert "Traceback" not in error


def test_wrong_settings_name_themselves(scenes: Path, tmp_path: Path) -> None:
    model = piip.PIIP("piip_nano_mask_rcnn")
    with pytest.raises(ValueError, match="batch_sise: there is no such setting; did you mean batch_size"):
        model.train(scenes, epochs=1, output=tmp_path, batch_sise=2)
    with pytest.raises(ValueError, match="detection: there is no such setting"):
        model.train(scenes, epochs=1, output=tmp_path, head={"detection": 2})
    with pytest.raises(ValueError, match="lr"):
        model.train(scenes, epochs=1, output=tmp_path, lr=-1.0)
    with pytest.raises(DataError, match="test"):
        model.val(scenes, split="test")
    with pytest.raises(WeightsError):
        piip.PIIP(tmp_path)
    assert not list(tmp_path.iterdir())
