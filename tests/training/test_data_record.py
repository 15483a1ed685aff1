"""A run remembers what it was trained on, and does not go on with other labels."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import PlainModel, ToyData, toy_config, toy_settings

from piip import tasks
from piip.data.report import DataError
from piip.data.synthetic import make_scenes
from piip.training.checkpoint import load_checkpoint
from piip.training.data_record import record_of
from piip.training.folder import RunFolder
from piip.training.loop import train
from piip.training.start import resume_run, start_run


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", train=4, val=1, seed=1, size=(64, 64))


@pytest.fixture(scope="module")
def begun(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    settings = toy_settings(data=str(scenes), epochs=1, grad_accumulation=1)
    result, _ = start_run(toy_config(), None, settings, tmp_path_factory.mktemp("runs"))
    return result.folder


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    return shutil.copytree(begun, tmp_path / "run")


def changed(scenes: Path, folder: Path, change: Any) -> Path:
    """A copy of the data after `change(annotations)`."""
    copy = shutil.copytree(scenes, folder)
    file = copy / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return copy


class Listed:
    """Files that describe themselves as training data."""

    classes = ("a",)

    def __init__(self, *files: str) -> None:
        self.files = files

    def contents(self) -> Iterator[tuple[Path, str]]:
        return ((Path(file), f"{number}: 1.0") for number, file in enumerate(self.files))


def test_the_record_of_runs_that_were_begun_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for files, names in (
        (("x/a/1.png", "x/b/2.png"), ("a/1.png", "b/2.png")),
        ((f"{tmp_path}/x/1.png", "x/é..png"), ("1.png", "é..png")),
        (("x/1.png", "x/../y/2.png"), ("1.png", "../y/2.png")),
    ):
        lines = "".join(f"{name}\0{number}: 1.0\n" for number, name in enumerate(names))
        record = record_of(Listed(*files))
        assert record is not None
        assert record.digest == hashlib.sha256(lines.encode()).hexdigest()


def test_data_that_was_moved_is_the_same(run: Path, scenes: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(scenes, tmp_path / "elsewhere" / "again")
    result, _ = resume_run(run, {"data": str(moved), "epochs": 2})
    assert [row["epoch"] for row in result.history] == [1, 2]


def test_classes_in_another_order_are_matched_by_name(run: Path, scenes: Path, tmp_path: Path) -> None:
    def turn_around(content: dict[str, Any]) -> None:
        ids = [category["id"] for category in content["categories"]]
        other = dict(zip(ids, reversed(ids), strict=True))
        for category in content["categories"]:
            category["id"] = other[category["id"]]
        for item in content["annotations"]:
            item["category_id"] = other[item["category_id"]]

    data = changed(scenes, tmp_path / "turned", turn_around)
    result, _ = resume_run(run, {"data": str(data), "epochs": 2})
    assert result.end == "finished"


def exchange_names(content: dict[str, Any]) -> None:
    first, second = content["categories"][:2]
    first["name"], second["name"] = second["name"], first["name"]


def fewer_images(content: dict[str, Any]) -> None:
    gone = content["images"].pop()["id"]
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] != gone]


def move_a_box(content: dict[str, Any]) -> None:
    content["annotations"][0]["bbox"][2] -= 3
    content["annotations"][0].pop("segmentation", None)


def new_name(content: dict[str, Any]) -> None:
    content["categories"][0]["name"] = "unheard of"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange_names, "the training data changed.*4 images; now there are as many, but other files, labels"),
        (fewer_images, "4 images, now there are 3"),
        (new_name, "unheard of"),
    ],
)
def test_other_data_is_refused(run: Path, scenes: Path, tmp_path: Path, change: Any, message: str) -> None:
    data = changed(scenes, tmp_path / "changed", change)
    config = (run / "config.yaml").read_bytes()
    with pytest.raises(DataError, match=message):
        resume_run(run, {"data": str(data), "epochs": 2})
    assert (run / "config.yaml").read_bytes() == config


def test_a_checkpoint_that_does_not_say_resumes_with_a_note(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = RunFolder(run).checkpoint
    state = load_checkpoint(checkpoint)
    del state["data"]
    for new in ("skipped_batches", "nonfinite_in_a_row", "skipped_steps", "unreadable"):
        del state["position"][new]
    torch.save(state, checkpoint)
    with caplog.at_level(logging.WARNING):
        result, _ = resume_run(run, {"epochs": 2})
    assert result.end == "finished"
    assert "does not say what it was trained on" in caplog.text
    assert load_checkpoint(checkpoint)["data"]["images"] == 4


def test_a_box_is_part_of_the_labels(scenes: Path, tmp_path: Path) -> None:
    records = []
    for data in (scenes, changed(scenes, tmp_path / "moved", move_a_box)):
        opened = tasks.detection.open_split(data, "train")
        model = toy_config(masks=False).model_copy(update={"classes": opened.classes})
        records.append(record_of(tasks.detection.training_set(model, opened, toy_settings().augmentation, 0)))
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].images == records[1].images
    assert records[0].digest != records[1].digest


def test_data_that_does_not_describe_itself(tmp_path: Path) -> None:
    assert record_of(ToyData(3)) is None
    train(PlainModel(), ToyData(3), toy_settings(epochs=1, ema=None), tmp_path)  # type: ignore[arg-type]
    assert load_checkpoint(RunFolder(tmp_path).checkpoint)["data"] is None
