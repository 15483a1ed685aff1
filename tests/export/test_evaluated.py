"""`piip val` of an exported file: the figures of the model that it was made of."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.export.models import eager, photo, small
from tests.mask_sets import make_masks
from typer.testing import CliRunner

import piip
from piip.api.evaluating import evaluate_exported
from piip.cli import app
from piip.data.synthetic import make_scenes


def boxes(folder: Path, classes: tuple[str, ...]) -> Path:
    """Objects of the model's classes on images that the graph holds without padding."""
    make_scenes(folder, train=0, val=3, size=(64, 64))
    file = folder / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    kept = content["categories"][: len(classes)]
    content["categories"] = [{**one, "name": name} for one, name in zip(kept, classes, strict=True)]
    ids = {one["id"] for one in kept}
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] in ids]
    file.write_text(json.dumps(content))
    return folder


def masks(folder: Path, classes: tuple[str, ...]) -> Path:
    return make_masks(folder, description={"classes": list(classes), "ignore_index": 255})


def folders(folder: Path, classes: tuple[str, ...]) -> Path:
    for number, name in enumerate(classes):
        (folder / "val" / name).mkdir(parents=True)
        Image.fromarray(photo(70, 90, number)).save(folder / "val" / name / "1.png")
    return folder


@pytest.mark.parametrize(("head", "make"), [("mask_rcnn", boxes), ("upernet", masks), ("classifier", folders)])
def test_the_figures_are_the_models(head: str, make, tmp_path: Path) -> None:
    model = small(head)
    data = make(tmp_path / "data", model.config.classes)
    wanted = piip.PIIP(model, "cpu").val(data, workers=0, intervals=False).scalars()
    found = evaluate_exported(eager(model, batch=2), data, output=tmp_path / "out", workers=0, intervals=False)
    assert found.scalars() == pytest.approx(wanted, abs=1e-6, nan_ok=True)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_a_graph_that_holds_no_whole_images_is_refused(tmp_path: Path) -> None:
    exported = eager(small("mask_rcnn"), size=(32, 64))
    with pytest.raises(ValueError, match=r"its graph takes 32 x 64 pixels, .* export a square"):
        evaluate_exported(exported, tmp_path)
    with pytest.raises(ValueError, match="holds a backbone"):
        evaluate_exported(eager(small("mask_rcnn"), part="backbone"), tmp_path)


def test_the_verb(tmp_path: Path) -> None:
    torch.manual_seed(0)
    held = piip.PIIP(small("classifier"), "cpu")
    data = folders(tmp_path / "data", held.config.classes)
    file = held.export(tmp_path / "w.pt2", images=[photo(64, 64)]).path
    arguments = ["val", "--weights", str(file), "--data", str(data), "--workers", "0"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "val-data" / "metrics.json").read_text())
    assert written["top1"] == pytest.approx(held.val(data, workers=0).scalars()["top1"])
    refused = CliRunner().invoke(app, [*arguments, "--batch-size", "2", "--tiles", "32"])
    assert "runs as it is, without --tiles, --batch-size" in str(refused.exception)
