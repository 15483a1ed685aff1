"""Where `piip predict` and `piip val` put their files, and that they are nobody else's."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests import tiny
from typer.testing import CliRunner, Result

import piip
from piip.cli import app, main
from piip.console import PIIPWarning
from piip.data.synthetic import make_scenes


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return piip.PIIP(tiny.model(classes=("disc", "triangle", "cross")), device="cpu").save(tmp_path / "model")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_each_prediction_gets_a_folder_of_its_own(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save("x.png")
    for folder in ("predict", "predict2", "predict3"):
        done = run("predict", "x.png", "--weights", weights)
        assert done.exit_code == 0, done.output
        assert str(Path("runs") / folder) in done.output
        names = {path.name for path in (tmp_path / "runs" / folder).iterdir()}
        assert names == {
            "x.jpg", "predictions.json", "predictions.jsonl", "coco_results.json", "coco_results.jsonl", "run.json"
        }  # fmt: skip
    assert run("predict", "x.png", "--weights", weights, "--output", "mine").exit_code == 0
    before = (tmp_path / "mine" / "predictions.json").stat().st_mtime_ns
    again = run("predict", "x.png", "--weights", weights, "--output", "mine")
    assert "choose another folder" in str(again.exception)
    assert (tmp_path / "mine" / "predictions.json").stat().st_mtime_ns == before
    assert not (tmp_path / "runs" / "predict4").exists()


def test_evaluations_stay_apart_and_replace_nothing(weights: Path, tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes", train=1, val=1, seed=0, size=(64, 64))
    common = ("val", "--weights", weights, "--data", data, "--workers", 0)
    for _ in range(2):
        done = run(*common)
        assert done.exit_code == 0, str(done.exception)
    home = weights if weights.is_dir() else weights.parent
    folders = sorted(path.name for path in home.iterdir() if path.is_dir() and path.name.startswith("val-"))
    assert folders == ["val-scenes", "val-scenes-2"]
    assert "would be overwritten" in str(run(*common, "--output", home / "val-scenes").exception)


def test_in_tiles(weights: Path, tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes", train=1, val=1, seed=0, size=(64, 96))
    picture = next(path for path in sorted((tmp_path / "scenes").rglob("*")) if path.suffix in (".jpg", ".png"))
    more = ("--tiles", 48, "--overlap", 0.1, "--batch-size", 3, "--detections", 7)
    done = run("predict", picture, "--weights", weights, "--conf", 0, "--output", tmp_path / "out", *more)
    assert done.exit_code == 0, str(done.exception)
    (found,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(found["objects"]) <= 7
    done = run("val", "--weights", weights, "--data", data, "--output", tmp_path / "val", "--workers", 0, *more,
               "--iou", "0.33,0.5")  # fmt: skip
    assert done.exit_code == 0, str(done.exception)
    written = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert [row["iou"] for row in written["ious"]["box"]] == [0.33, 0.5]
    assert "box AP by IoU" in done.output
    wrong = run("val", "--weights", weights, "--data", data, "--output", tmp_path / "other", "--iou", "a third")
    assert "--iou a third: use overlaps" in str(wrong.exception)
    wrong = run("predict", picture, "--weights", weights, "--tiles", 48, "--overlap", 1)
    assert "use a share of a tile's side" in str(wrong.exception)


def test_a_name_of_a_model_is_no_weights(tmp_path: Path) -> None:
    for verb in (("predict", tmp_path), ("val", "--data", tmp_path), ("export",)):
        for name, told in (("piip_nano_dino", "its run's folder"), ("piip_tsb_1120_896_448_mask_rcnn", "official")):
            error = str(run(*verb, "--weights", name).exception)
            assert error.startswith(f"{name}: the name of a model, which has no weights"), error
            assert told in error


def test_a_warning_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command(**options: object) -> None:
        warnings.warn("has random weights", PIIPWarning, stacklevel=2)
        warnings.warn("somebody else's", UserWarning, stacklevel=2)

    monkeypatch.setattr("piip.cli.app", command)
    with pytest.warns(UserWarning, match="somebody else's") as shown_by_python:
        main()
    assert len(shown_by_python) == 1
    assert capsys.readouterr().err == "Warning: has random weights\n"
