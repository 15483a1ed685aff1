"""One rule for the names of devices, for predictions and trainings alike."""

from pathlib import Path

import pytest
import torch
from tests import tiny

import piip
from piip import devices
from piip.data.synthetic import make_scenes
from piip.prediction.predictor import Predictor


@pytest.mark.parametrize(
    ("device", "name"),
    [(None, "auto"), ("auto", "auto"), (1, "cuda:1"), ("0", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_names(device: devices.Device | None, name: str) -> None:
    assert devices.named(device) == name
    assert devices.named(torch.device("cpu")) == "cpu"


def test_auto_is_what_is_taken_without_a_name() -> None:
    assert devices.find("auto") == devices.find(None) == devices.usual()
    assert str(devices.find("cpu")) in devices.available()


@pytest.mark.parametrize("device", ["gpu", "cuda:77", 77, "77", "meta:x"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(device: devices.Device) -> None:
    with pytest.raises(ValueError, match="is not available here; use one of cpu"):
        devices.find(device)
    with pytest.raises(ValueError, match="is not available here"):
        Predictor(piip.create_model("piip_nano_mask_rcnn"), device)


def test_a_training_takes_the_names_that_a_prediction_takes(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes", train=2, val=1, seed=0, size=(64, 64))
    settings = {"batch_size": 2, "workers": 0, "image_size": 64, "output": tmp_path / "runs"}
    trained = piip.PIIP(tiny.model(), device="auto")
    result = trained.train(data, epochs=1, device="auto", **settings)
    again, _ = piip.PIIP.resume(result.folder, epochs=2, device="auto")
    assert again.device == trained.device == str(devices.usual())
    with pytest.raises(ValueError, match="is not available here"):
        piip.PIIP(tiny.model(), device=77)
