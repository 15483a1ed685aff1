"""What a prediction leaves in a folder: all of every image, at once, and never in the place of something else."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import tiny

import piip
from piip import config
from piip.files import atomic_write, free_folder, json_text, numbered, write_json
from piip.prediction.bulk import write_predictions
from piip.prediction.files import Writer
from piip.prediction.predictor import Predictor
from piip.prediction.results import RESULTS

HEADS: dict[str, config.Head] = {
    "detection": config.MaskRCNN(channels=16, fc_channels=32, mask_convs=1, proposals=60, detections=20),
    "segmentation": config.UperNet(channels=16, auxiliary_channels=None),
    "classification": config.Classifier(),
}


@pytest.fixture(scope="module")
def held() -> piip.PIIP:
    return piip.PIIP(tiny.model(), device="cpu")


@pytest.fixture(scope="module")
def segmentor() -> Predictor:
    return piip.PIIP(tiny.model().model_copy(update={"head": HEADS["segmentation"]}), device="cpu").predictor()


def save_photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", HEADS)
def test_lines_and_lists_say_the_same(task: str, tmp_path: Path) -> None:
    for index in range(2):
        save_photo(tmp_path / "in" / f"{index}.png", index)
    model = piip.PIIP(tiny.model().model_copy(update={"head": HEADS[task]}), device="cpu")
    written = write_predictions(model.predictor(), [str(tmp_path / "in")], tmp_path / "out", 0.0)
    assert written.images == 2
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert [row["id"] for row in rows] == [1, 2]
    assert [row["picture"] for row in rows] == ["0.jpg", "1.jpg"]
    assert all((tmp_path / "out" / row["picture"]).is_file() for row in rows)
    expected = model.predict(tmp_path / "in", conf=0.0)
    for row, result in zip(rows, expected, strict=True):
        assert result.to_dict() == {name: row[name] for name in result.to_dict()}
    if task == "detection":
        entries = [entry for number, result in enumerate(expected, 1) for entry in result.to_coco(number)]
        assert json.loads((tmp_path / "out" / "coco_results.json").read_text()) == entries
        assert written.objects == len(entries) > 0
    if task == "segmentation":
        assert [row["mask"] for row in rows] == ["masks/0.png", "masks/1.png"]


def test_what_was_done_before_a_failure_is_kept(held: piip.PIIP, tmp_path: Path) -> None:
    def images() -> Iterator[Any]:
        yield save_photo(tmp_path / "in" / "a.png")
        yield save_photo(tmp_path / "in" / "b.png")
        raise KeyboardInterrupt

    stream = held.predictor().stream(images())
    seen = []

    def write_all() -> None:
        with Writer(tmp_path / "out", RESULTS["detection"]) as writer:
            for outcome in stream:
                writer.add(outcome)
                seen.append(len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()))

    with pytest.raises(KeyboardInterrupt):
        write_all()
    assert seen == [1, 2]
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["picture"] for line in lines] == ["a.jpg", "b.jpg"]
    assert not (tmp_path / "out" / "predictions.json").exists()


@pytest.mark.parametrize(
    "name", ["predictions.json", "predictions.jsonl", "coco_results.json", "a.jpg", "link", "dangling"]
)
def test_a_detector_s_results_replace_nothing(held: piip.PIIP, tmp_path: Path, name: str) -> None:
    source, out = save_photo(tmp_path / "in" / "a.png"), tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere.jpg").write_text("mine")
    if name == "link":
        (out / "a.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    elif name == "dangling":
        (out / "predictions.json").symlink_to(tmp_path / "nowhere.json")
    else:
        (out / name).write_text("mine")
    before = everything_in(tmp_path)
    with pytest.raises(ValueError, match="is there already and would be .* choose another folder"):
        write_predictions(held.predictor(), [source], out)
    assert everything_in(tmp_path) == before


def test_a_segmentor_s_masks_never_join_those_of_the_data(segmentor: Predictor, tmp_path: Path) -> None:
    for name in ("images/0.png", "images/1.png", "masks/0.png"):
        save_photo(tmp_path / name)
    before = everything_in(tmp_path)
    for source in ("images", "images/0.png", "images/1.png"):
        with pytest.raises(ValueError, match="masks is there already"):
            write_predictions(segmentor, [str(tmp_path / source)], tmp_path)
    assert everything_in(tmp_path) == before


def test_a_folder_with_other_things_is_used(segmentor: Predictor, tmp_path: Path) -> None:
    source, out = save_photo(tmp_path / "in" / "a.png"), tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    assert write_predictions(segmentor, [source], out).images == 1
    assert (out / "masks" / "a.png").is_file()
    assert (out / "notes.txt").read_text() == "mine"


def test_pictures_alone_get_numbers_where_names_are_taken(held: piip.PIIP, tmp_path: Path) -> None:
    source, out = save_photo(tmp_path / "in" / "a.png"), tmp_path / "out"
    (tmp_path / "elsewhere.jpg").write_text("mine")
    out.mkdir()
    (out / "a.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    for _ in range(2):
        held.predict(source, save=out)
    assert sorted(path.name for path in out.iterdir()) == ["a-2.jpg", "a-3.jpg", "a.jpg"]
    assert (tmp_path / "elsewhere.jpg").read_text() == "mine"


def test_a_folder_of_one_s_own_is_filled_anew(held: piip.PIIP, tmp_path: Path) -> None:
    sources = [save_photo(tmp_path / folder / "a.png", seed) for seed, folder in enumerate("xy")]
    for _ in range(2):
        with Writer(tmp_path / "out", RESULTS["detection"], lists=False, replace=True) as writer:
            for outcome in held.predictor().stream(sources):
                writer.add(outcome)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.jpg", "a.jpg"]


@pytest.mark.parametrize("stem", ["x" * 251, "\u56fe" * 80])
def test_names_as_long_as_file_systems_take(held: piip.PIIP, tmp_path: Path, stem: str) -> None:
    images = [save_photo(tmp_path / folder / f"{stem}.png") for folder in "ab"]
    write_predictions(held.predictor(), images, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len({row["picture"] for row in rows}) == 2
    for row in rows:
        assert row["picture"].startswith(stem[:60])
        assert (tmp_path / "out" / row["picture"]).is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_file_names_that_are_not_utf_8_come_back_from_json(held: piip.PIIP, tmp_path: Path) -> None:
    save_photo(tmp_path / "in" / "x.png")
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "in" / "x.png").rename(tmp_path / "in" / name)
    written = write_predictions(held.predictor(), [tmp_path / "in"], tmp_path / "out")
    assert written.images == 1
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_bytes().decode("utf-8"))
    assert Path(row["path"]).is_file()
    assert (tmp_path / "out" / row["picture"]).is_file()
    (result,) = held.predict(tmp_path / "in")
    assert json.loads(result.to_json().encode("utf-8"))["path"] == row["path"]


def test_json_of_odd_names_is_text_that_can_be_written(tmp_path: Path) -> None:
    odd = {"name": "caf\udce9", "\u56fe": '"\\ \ud83d\ude00'}
    assert json.loads(json_text(odd).encode("utf-8")) == {"name": "caf\udce9", "\u56fe": '"\\ \U0001f600'}
    write_json(tmp_path / "a.json", odd)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["name"] == "caf\udce9"


@pytest.mark.parametrize("name", ["x" * 255, "\u56fe" * 85])
def test_files_with_the_longest_names_are_written(tmp_path: Path, name: str) -> None:
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_free_folders(tmp_path: Path) -> None:
    folder = tmp_path / "predict"
    assert free_folder(folder) == folder
    folder.mkdir()
    assert free_folder(folder) == folder
    (folder / "a").write_text("")
    assert free_folder(folder) == tmp_path / "predict2"
    assert free_folder(folder, "-") == tmp_path / "predict-2"
    (tmp_path / "predict2").symlink_to(tmp_path / "nowhere")
    assert free_folder(folder) == tmp_path / "predict3"


def test_numbers_of_equal_names() -> None:
    assert numbered(["a.png", "b.png", "a.png", "a-2.png"]) == ["a.png", "b.png", "a-2.png", "a-2-2.png"]
    assert numbered(["A.png", "a.png", "e\u0301.png", "\u00e9.png"]) == [
        "A.png", "a-2.png", "e\u0301.png", "\u00e9-2.png"
    ]  # fmt: skip
