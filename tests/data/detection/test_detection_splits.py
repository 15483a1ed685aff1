"""Data sets are recognised by what lies in the folder."""

import json
import shutil
from pathlib import Path

import pytest

from piip.data.detection.coco import read_coco
from piip.data.detection.splits import Split, find_splits
from piip.data.report import DataError
from piip.data.synthetic import make_scenes


def put(root: Path, *files: str, name: str = "a.jpg") -> None:
    """Files below `root`: annotations naming one image, images as empty files."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"info": {}, "images": [{"file_name": name}]}
        path.write_text(json.dumps(content) if path.suffix == ".json" else "")


@pytest.mark.parametrize("images", ["train2017", "train", "images/train2017", "images/train", "images", "."])
@pytest.mark.parametrize("file", ["annotations/instances_train2017.json", "annotations/train2017.json"])
def test_coco_layouts(tmp_path, images, file):
    put(tmp_path, file, f"{images}/a.jpg")
    assert find_splits(tmp_path) == {"train": Split(tmp_path / file, tmp_path / images)}


def test_file_names_that_begin_with_the_folder(tmp_path):
    put(tmp_path, "annotations/instances_train.json", "train/a.jpg", name="train/a.jpg")
    assert find_splits(tmp_path)["train"].image_folder == tmp_path


def test_roboflow(tmp_path):
    for folder in ("train", "valid", "test"):
        put(tmp_path, f"{folder}/_annotations.coco.json", f"{folder}/a.jpg")
    splits = find_splits(tmp_path)
    assert list(splits) == ["train", "val", "test"]
    assert splits["val"] == Split(tmp_path / "valid" / "_annotations.coco.json", tmp_path / "valid")


def test_fiftyone(tmp_path):
    put(tmp_path, "train/labels.json", "train/data/a.jpg")
    assert find_splits(tmp_path) == {"train": Split(tmp_path / "train/labels.json", tmp_path / "train/data")}


def test_annotation_files_beside_the_image_folders(tmp_path):
    put(tmp_path, "train.json", "val.json", "images/a.jpg")
    splits = find_splits(tmp_path)
    assert splits["train"] == Split(tmp_path / "train.json", tmp_path / "images")
    assert splits["val"] == Split(tmp_path / "val.json", tmp_path / "images")


def test_captions_and_keypoints_are_not_taken_for_instances(tmp_path):
    names = ("instances", "captions", "person_keypoints")
    put(tmp_path, *(f"annotations/{name}_val2017.json" for name in names), "val2017/a.jpg")
    assert find_splits(tmp_path)["val"].annotation_file.name == "instances_val2017.json"


@pytest.mark.parametrize(
    ("file", "split"),
    [("boxes.json", "train"), ("instances_val2017.json", "val"), ("my-test.json", "test"), ("evaluated.json", "train")],
)
def test_one_file(tmp_path, file, split):
    put(tmp_path, file, "a.jpg")
    assert find_splits(tmp_path / file) == {split: Split(tmp_path / file, tmp_path)}
    if split == "train":
        assert find_splits(tmp_path) == {split: Split(tmp_path / file, tmp_path)}


def test_one_file_in_an_annotations_folder(tmp_path):
    put(tmp_path, "annotations/instances_val.json", "val/a.jpg", "train/b.jpg")
    file = tmp_path / "annotations" / "instances_val.json"
    assert find_splits(file) == {"val": Split(file, tmp_path / "val")}


def test_two_files_for_one_split_are_not_chosen_between(tmp_path):
    put(tmp_path, "annotations/instances_train2014.json", "annotations/instances_train2017.json")
    with pytest.raises(DataError, match=r"instances_train2014\.json and instances_train2017\.json"):
        find_splits(tmp_path)


def test_nothing_recognised_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match="instances_train"):
        find_splits(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        find_splits(tmp_path / "nowhere")
    put(tmp_path, "image.jpg")
    with pytest.raises(DataError, match=r"\.json"):
        find_splits(tmp_path / "image.jpg")


def test_real_sets(coco100, bccd):
    splits = find_splits(coco100)
    assert {name: split.image_folder.name for name, split in splits.items()} == {"train": "train2017", "val": "val2017"}
    assert {name: split.image_folder.name for name, split in find_splits(bccd).items()} == {
        "train": "train",
        "val": "val",
    }


def test_annotations_that_name_no_image_early_still_find_a_folder(tmp_path):
    put(tmp_path, "annotations/instances_train.json", "train/a.jpg")
    (tmp_path / "annotations" / "instances_train.json").write_text('{"images": []}')
    assert find_splits(tmp_path)["train"].image_folder == tmp_path / "train"
    shutil.rmtree(tmp_path / "train")
    assert find_splits(tmp_path)["train"].image_folder.is_dir()


@pytest.mark.parametrize("images", ["images/Train", "Images/train", "TRAIN", "Images"])
@pytest.mark.parametrize("file", ["annotations/instances_Train.json", "Annotations/instances_train.json", "Train.json"])
def test_capitals(tmp_path, images, file):
    put(tmp_path, file, f"{images}/a.jpg")
    assert find_splits(tmp_path) == {"train": Split(tmp_path / file, tmp_path / images)}


def test_addresses_instead_of_names(tmp_path):
    put(tmp_path, "annotations/lvis_v1_train.json", "train2017/a.jpg")
    record = {"id": 1, "coco_url": "http://images.example/train2017/a.jpg"}
    (tmp_path / "annotations/lvis_v1_train.json").write_text(json.dumps({"images": [record], "annotations": []}))
    data, report = find_splits(tmp_path)["train"]
    assert (data.name, report) == ("lvis_v1_train.json", tmp_path)


def test_one_missing_image_does_not_hide_the_others(tmp_path: Path) -> None:
    make_scenes(tmp_path, train=3, val=0, size=(32, 32))
    first = min((tmp_path / "train").iterdir())
    first.unlink()
    assert find_splits(tmp_path)["train"].image_folder == tmp_path / "train"
    data, report = read_coco(*find_splits(tmp_path)["train"])
    assert len(data.images) == 2
    assert [(item.count, first.name in item.examples[0]) for item in report.findings if "missing" in item.kind] == [
        (1, True)
    ]
