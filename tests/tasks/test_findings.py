"""What reading the data found goes with it into training and evaluation, and ends them where nothing can come of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import tiny
from tests.data.class_folders import write_classes
from tests.mask_sets import make_masks

import piip
from piip import tasks
from piip.data.report import DataError
from piip.data.synthetic import CLASSES as SHAPES
from piip.data.synthetic import make_scenes

CLASSES = ("disc", "square", "star")


def change(root: Path, split: str, edit: Callable[[dict[str, Any]], None]) -> None:
    file = root / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def without_a_box(content: dict[str, Any]) -> None:
    content["annotations"][0] |= {"bbox": [0, 0, 0, 0], "segmentation": []}


def all_crowds(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1


def lose(root: Path, split: str, count: int) -> None:
    for file in sorted((root / split).glob("*.png"))[:count]:
        file.unlink()


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return make_scenes(tmp_path / "set", train=3, val=4, size=(32, 32))


@pytest.fixture
def detector() -> piip.PIIP:
    return piip.PIIP(tiny.model(classes=SHAPES), device="cpu")


def train(model: piip.PIIP, data: Path, **settings: Any) -> Path:
    return model.train(data, epochs=1, batch_size=2, workers=0, output=data.parent / "runs", **settings).folder


def test_a_training_says_in_one_line_what_was_left_out(detector: piip.PIIP, scenes: Path, capsys: Any) -> None:
    lose(scenes, "train", 1)
    change(scenes, "val", without_a_box)
    folder = train(detector, scenes)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("data: ")]
    assert len(lines) == 1
    assert "train: 1 of 3 images are left out; left out: " in lines[0]
    assert "image file that is missing or cannot be read (1)" in lines[0]
    assert "val: left out: box of zero size (1)" in lines[0]
    assert str(folder / "data_findings.json") in lines[0]
    written = json.loads((folder / "data_findings.json").read_text())
    assert written["val"]["findings"][0]["kind"] == "box of zero size"
    missing = [item for item in written["train"]["findings"] if "missing" in item["kind"]]
    assert "00000.png" in missing[0]["examples"][0]


def test_good_data_are_nothing_to_speak_of(detector: piip.PIIP, scenes: Path, capsys: Any) -> None:
    folder = train(detector, scenes)
    detector.val(scenes, workers=0, output=folder / "again")
    assert "data: " not in capsys.readouterr().err
    assert not list(folder.rglob("data_findings.json"))


def test_an_evaluation_says_what_was_left_out(detector: piip.PIIP, scenes: Path, tmp_path: Path, capsys: Any) -> None:
    lose(scenes, "val", 1)
    detector.val(scenes, workers=0, output=tmp_path / "out")
    assert "data: val: 1 of 4 images are left out" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "out" / "data_findings.json").read_text())) == ["val"]


def test_mostly_missing_images_are_no_evaluation(detector: piip.PIIP, scenes: Path, tmp_path: Path) -> None:
    lose(scenes, "val", 3)
    with pytest.raises(DataError, match=r"3 of its 4 images are left out, .* first: image file that is missing"):
        detector.val(scenes, workers=0)
    with pytest.raises(DataError, match="3 of its 4 images are left out"):
        train(detector, scenes)
    assert not (tmp_path / "runs").exists()


def test_crowds_alone_are_nothing_to_learn_from(detector: piip.PIIP, scenes: Path, tmp_path: Path) -> None:
    change(scenes, "train", all_crowds)
    for drop_empty in (True, False):
        with pytest.raises(DataError, match=r"no objects at all: 3 images, all \d+ annotations are crowd regions"):
            train(detector, scenes, drop_empty=drop_empty)
    assert not (tmp_path / "runs").exists()
    found = tasks.check_data(scenes)["train"].to_dict()["findings"]
    assert [item["count"] for item in found if "crowd region (iscrowd = 1)" in item["kind"]] != []


def test_more_crowds_than_objects_are_told(scenes: Path) -> None:
    def mostly(content: dict[str, Any]) -> None:
        all_crowds(content)
        content["annotations"][0]["iscrowd"] = 0

    change(scenes, "train", mostly)
    line = tasks.in_a_line({"train": tasks.open_data(scenes, "train")})
    assert line is not None
    assert "crowd region (iscrowd = 1), which is not trained on" in line


def test_masks_that_are_missing_go_with_the_data(tmp_path: Path) -> None:
    root = make_masks(tmp_path, side=48)
    (root / "images" / "train" / "000.png").write_bytes(b"no image")
    data = tasks.open_data(root, "train")
    assert tasks.in_a_line({"train": data}) == (
        "data: train: 1 of 4 images are left out; left out: file cannot be read (1)"
    )
    described = tiny.model(classes=("more", *data.classes))
    assert tasks.named("segmentation").in_label_order(described, data).report is data.report


def test_class_folders_with_broken_files_tell(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", count=3, classes=CLASSES)
    write_classes(tmp_path / "val", count=3, classes=CLASSES)
    (tmp_path / "train" / "disc" / "0.png").write_bytes(b"no image")
    data = tasks.open_data(tmp_path, "train")
    assert tasks.in_a_line({"train": data}) == (
        "data: train: 1 of 9 images are left out; left out: file that cannot be read (1)"
    )
    for name in CLASSES:
        for number in (0, 1):
            (tmp_path / "val" / name / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="6 of its 9 images are left out"):
        tasks.require_enough("val", tasks.open_data(tmp_path, "val"))
    tasks.require_enough("train", data)


def test_repairs_are_counted_by_kind(scenes: Path) -> None:
    def careless(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            del annotation["area"]

    change(scenes, "train", careless)
    data = tasks.open_data(scenes, "train")
    line = tasks.in_a_line({"train": data})
    assert line == f"data: train: repaired: object without an area (computed) ({data.report.objects})"


def test_other_tools_formats_are_named(tmp_path: Path) -> None:
    scenes = make_scenes(tmp_path / "scenes", train=2, val=1, size=(64, 64))
    data = tasks.open_data(scenes, "train")
    data.report.findings.clear()
    assert tasks.in_a_line({"train": data}) is None
    data.report.format = "Pascal VOC"
    assert tasks.in_a_line({"train": data}) == "data (Pascal VOC): nothing to remark"
