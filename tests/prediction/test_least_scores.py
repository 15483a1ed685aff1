"""`conf="auto"` and scores by class: what they keep, what they say where there is nothing to go by, who saves them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import tiny
from typer.testing import CliRunner

import piip
from piip import config
from piip.cli import app
from piip.data.report import DataError
from piip.prediction.least_scores import least_score, least_scores, read_thresholds
from piip.prediction.options import Options

CLASSES = ("disc", "square", "star")


def a_model() -> piip.PIIP:
    torch.manual_seed(0)
    described = tiny.model(1, CLASSES, masks=False, score_threshold=0.0, detections=30)
    return piip.PIIP(piip.PIIP(described, device="cpu").model)


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize("tiles", [None, 60])
def test_each_class_has_its_own_score(tiles: int | None) -> None:
    model = a_model()
    everything = model.predict(photo(), conf=0.0, tiles=tiles)
    of_squares = everything.scores[everything.labels == 1]
    assert len(of_squares) > 1
    middle = float(of_squares.median())
    calibrated = model.with_thresholds({"disc": 1.0, "square": middle})
    assert calibrated.config.thresholds == (1.0, middle, None)
    given = model.predict(photo(), conf={"disc": 1.0, "square": middle, "star": 0.0}, tiles=tiles)
    auto = calibrated.predict(photo(), conf="auto", tiles=tiles)
    assert (given.labels == 1).sum() == (auto.labels == 1).sum() == (of_squares >= middle).sum()
    assert not (auto.labels == 0).any()
    assert torch.equal(auto.scores[auto.labels == 2], given.scores[(given.labels == 2) & (given.scores >= 0.25)])
    if tiles is None:
        assert (given.labels == 2).sum() == (everything.labels == 2).sum()


def test_they_are_saved_with_the_weights_and_end_with_other_classes(tmp_path: Path) -> None:
    model = a_model()
    calibrated = model.with_thresholds({"star": 0.75})
    assert model.config.thresholds is None
    for path in ("model.safetensors", "folder"):
        assert piip.PIIP(calibrated.save(tmp_path / path)).config.thresholds == (None, None, 0.75)
    described = calibrated.config.model_dump()
    described["classes"] = ("one",)
    with pytest.raises(ValueError, match="3 thresholds for 1 classes"):
        config.Model.model_validate(described)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    model = a_model()
    with pytest.raises(ValueError, match="these weights hold no thresholds"):
        model.predict(photo(), conf="auto", save=tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()
    with pytest.raises(ValueError, match="there is no class 'dog'; the model has disc, square, star"):
        model.predict(photo(), conf={"dog": 0.5})
    with pytest.raises(ValueError, match="there is no class 'dog'"):
        model.with_thresholds({"dog": 0.5})
    for wrong in ("0.5", {"disc": 2}, {1: 0.5}):
        with pytest.raises(ValueError, match="use a number from 0 to 1, 'auto'"):
            Options.of(conf=wrong)
    segmentor = piip.PIIP("piip_nano_upernet", device="cpu")
    with pytest.raises(ValueError, match="which finds no objects"):
        segmentor.with_thresholds({})
    assert least_scores("auto", segmentor.config) is None
    assert least_score("auto", segmentor.config) == 0.25


def test_the_command_takes_auto_and_a_file(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(photo()).save(tmp_path / "x.png")
    weights = a_model().with_thresholds({"disc": 1.0, "square": 1.0, "star": 1.0}).save(tmp_path / "model.safetensors")
    rows = [{"class": name, "score": 0.0} for name in CLASSES[:2]] + [{"class": "star", "score": None}]
    (tmp_path / "thresholds.json").write_text(json.dumps({"classes": rows}))
    (tmp_path / "other.json").write_text("[]")
    assert read_thresholds(tmp_path / "thresholds.json") == {"disc": 0.0, "square": 0.0}
    with pytest.raises(DataError, match="no thresholds.json"):
        read_thresholds(tmp_path / "other.json")

    def objects(conf: str) -> int:
        output = tmp_path / f"out-{Path(conf).stem}"
        command = [
            "predict",
            str(tmp_path / "x.png"),
            "--weights",
            str(weights),
            "--output",
            str(output),
            "--conf",
            conf,
        ]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.exception
        return len(json.loads((output / "predictions.json").read_text())[0]["objects"])

    assert objects("auto") == 0
    assert objects(str(tmp_path / "thresholds.json")) > 0
    wrong = CliRunner().invoke(app, ["predict", "x.png", "--weights", str(weights), "--conf", "high"])
    assert "--conf high: use a number from 0 to 1, auto" in str(wrong.exception)
