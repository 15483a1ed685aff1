"""`piip data check`, and where `piip val` puts its results."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests import tiny
from tests.mask_sets import make_masks
from typer.testing import CliRunner

import piip
from piip import config
from piip.benchmark.machine import _growth_of_peak
from piip.cli import app
from piip.model import PIIPModel
from piip.tasks.choice import require_pairing
from piip.weights.files import save_model


def test_a_check_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_masks(tmp_path / "set")
    monkeypatch.chdir(data)
    before = sorted(data.rglob("*"))
    assert CliRunner().invoke(app, ["data", "check", "."]).exit_code == 0
    assert sorted(data.rglob("*")) == before


def test_findings_are_written_where_asked_for_also_of_names_that_no_file_takes(tmp_path: Path) -> None:
    data = make_masks(tmp_path / "set", description={"classes": ["\udce9", "b", "c"], "ignore_index": 255})
    done = CliRunner().invoke(app, ["data", "check", str(data), "--json", str(tmp_path / "new" / "check.json")])
    assert done.exit_code == 0
    found = json.loads((tmp_path / "new" / "check.json").read_text(encoding="utf-8"))
    assert list(found["train"]["class_pixels"]) == ["\\udce9", "b", "c"]


def test_findings_are_never_written_over_a_file(tmp_path: Path) -> None:
    data = make_masks(tmp_path / "set")
    before = (data / "classes.json").read_bytes()
    done = CliRunner().invoke(app, ["data", "check", str(data), "--json", str(data / "classes.json")])
    assert "is there already" in str(done.exception)
    assert (data / "classes.json").read_bytes() == before


def test_sets_that_differ_after_a_dot_have_results_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmentor = tiny.model().model_copy(update={"head": config.UperNet()})
    weights = save_model(PIIPModel(segmentor), tmp_path / "model.safetensors")
    folders = []
    monkeypatch.setattr(piip.PIIP, "val", lambda self, data, split, output, *_: folders.append(output))
    for version in ("set.v1", "set.v2"):
        CliRunner().invoke(app, ["val", "--weights", str(weights), "--data", str(tmp_path / version)])
    assert [folder.name for folder in folders] == ["val-set.v1", "val-set.v2"]


def test_windows_does_not_tell_the_peak_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails, as there
    assert _growth_of_peak(lambda: torch.ones(1)) is None


def voc(root: Path) -> Path:
    """One image with one box, as an .xml file beside it."""
    root.mkdir()
    Image.new("RGB", (20, 10)).save(root / "a.png")
    (root / "a.xml").write_text(
        "<annotation><filename>a.png</filename><object><name>[b]ox</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    return root


def test_a_check_names_the_format_and_counts_classes(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "check", str(voc(tmp_path / "set"))])
    assert done.exit_code == 0, done.output
    assert "Pascal VOC" in done.output
    assert re.search(r"│ \[b\]ox +│ +1 │", done.output)


def test_a_check_without_a_usable_image_fails(tmp_path: Path) -> None:
    data = make_masks(tmp_path / "set")
    for file in (data / "images").rglob("*.*"):
        file.write_bytes(b"")
    done = CliRunner().invoke(app, ["data", "check", str(data)])
    assert done.exit_code == 1
    assert "no image that can be used" in done.output


def test_a_folder_that_fits_several_kinds_and_formats_says_so(tmp_path: Path) -> None:
    data = voc(tmp_path / "set")
    make_masks(data)
    (data / "coco.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "x"}], "annotations": []}'
    )
    done = CliRunner().invoke(app, ["data", "check", str(data)])
    assert "images and masks" in done.output
    assert "also holds data for detection" in done.output
    done = CliRunner().invoke(app, ["data", "check", str(data), "--task", "detection"])
    assert "also holds data for segmentation" in done.output
    assert "in the format of Pascal VOC, which are not used" in done.output
    require_pairing(tiny.model(), data)  # a detector takes the boxes


def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "check", str(tmp_path), "--task", "boxes"])
    assert "use segmentation, detection, classification" in str(done.exception)
