"""`piip export`, and the verbs that take what it writes."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.export.models import photo, small
from typer.testing import CliRunner, Result

import piip
from piip.cli import app
from piip.cli.export import size_of
from piip.export import check as comparison


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_export_then_predict_then_measure_then_a_comparison_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(70, 90)).save("x.png")
    weights = piip.PIIP(small("classifier"), "cpu").save(tmp_path / "w.safetensors")

    done = run("export", "--weights", weights, "--format", "pt2", "--images", "x.png")
    assert done.exit_code == 0, done.output
    assert "w.pt2" in done.output
    assert "1 images compared" in done.output

    again = run("export", "--weights", weights, "--format", "pt2")
    assert "w.pt2 is there already" in str(again.exception)

    found = run("predict", "x.png", "--weights", "w.pt2")
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "runs/predict/predictions.json").read_text())[0]["top"]
    assert "runs as it is" in str(run("predict", "x.png", "--weights", "w.pt2", "--window", 32).exception)
    assert "has its own" in str(run("predict", "x.png", "--weights", "w.pt2", "--precision", "fp16").exception)

    measured = run("benchmark", "w.pt2", "--rounds", 1, "--json")
    figures = json.loads(measured.stdout)
    assert figures["input"] == [64, 64]
    assert figures["runtime"].startswith("torch")
    assert "measured as it is" in str(run("benchmark", "w.pt2", "--train").exception)

    monkeypatch.setitem(comparison.LIMITS, False, comparison.Limits(-1.0, 0.0, 1.0, 1.0))
    failed = run("export", "--weights", weights, "--output", "bad.pt2", "--images", "x.png")
    assert failed.exit_code == 1
    assert "comparison failed" in failed.output
    assert (tmp_path / "bad.pt2").is_file()


@pytest.mark.parametrize(
    ("text", "size"), [(None, None), ("640", 640), ("480x640", (480, 640)), ("480X640", (480, 640))]
)
def test_sizes(text: str | None, size: object) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "x", "1x2x3", "-5", "a", "12x", "²"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="HEIGHTxWIDTH"):
        size_of(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "use one of onnx, openvino, pt2"),
        ({}, "use one of onnx, openvino, pt2"),
        ({"format": "pt2", "dynamic": True}, "fixed number"),
        ({"format": "pt2", "batch": 0}, "batch 0"),
        ({"format": "pt2", "image_size": 8}, "at least 32 pixels"),
    ],
)
def test_wrong_wishes_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        piip.PIIP(small("mask_rcnn"), "cpu").export(tmp_path / "m", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_classifiers_backbone_has_no_maps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no feature maps"):
        piip.PIIP(small("classifier"), "cpu").export(tmp_path / "m.pt2", part="backbone")
    with pytest.raises(ValueError, match="square"):
        piip.PIIP(small("classifier"), "cpu").export(tmp_path / "m.pt2", image_size=(64, 96))
