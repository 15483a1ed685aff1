"""The recogniser takes what the readers take, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from class_folders import write_classes, write_image
from coco_records import CATEGORIES, annotation, image
from drawn import pictures, write_voc
from PIL import Image
from tests.mask_sets import make_masks

from piip.data.kinds import also_fits, kind_of_data, kinds_of_data
from piip.data.report import DataError
from piip.data.synthetic import make_scenes
from piip.tasks import check_data


def test_other_json_files_are_no_annotations(tmp_path: Path) -> None:
    scenes = make_scenes(tmp_path / "scenes", train=1, val=1, size=(32, 32))
    classes = write_classes(tmp_path / "classes" / "train").parent
    findings = {name: report.to_dict() for name, report in check_data(scenes).items()}
    for data, kind in ((scenes, "detection"), (classes, "classification")):
        for name in ("data_check.json", "train.json", "train/settings.json"):
            (data / name).write_text(json.dumps(findings))
        assert kind_of_data(data) == kind
        assert all(report.images for report in check_data(data).values())


def test_a_single_coco_file_beside_other_json_files(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", 1, (30, 40))
    content = {"images": [image(1)], "annotations": [annotation()], "categories": CATEGORIES}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    before = {name: report.to_dict() for name, report in check_data(tmp_path).items()}
    (tmp_path / "data_check.json").write_text(json.dumps(before))
    (tmp_path / "labelme.json").write_text(json.dumps({"version": "5", "shapes": [], "imagePath": "1.png"}))
    assert {name: report.to_dict() for name, report in check_data(tmp_path).items()} == before


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".TIFF", ".gif", ".bmp"])
@pytest.mark.parametrize("layout", ["images", "images/train", "Train/Images", "Images"])
def test_masks_in_any_format_that_keeps_values(tmp_path: Path, suffix: str, layout: str) -> None:
    masks = layout.replace("images", "masks").replace("Images", "Masks")
    write_image(tmp_path / layout / "a.jpg", 1, (10, 12))
    values = np.zeros((10, 12), dtype=np.uint8)
    values[:3] = 1
    (tmp_path / masks).mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(tmp_path / masks / f"a{suffix}")
    (tmp_path / "classes.json").write_text('{"classes": ["ground", "tree"]}')
    assert kind_of_data(tmp_path) == "segmentation"
    assert check_data(tmp_path)["train"].class_counts == {"ground": 84, "tree": 36}


def test_masks_as_jpeg_are_refused_with_the_reason(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg", 1)
    write_image(tmp_path / "masks" / "a.jpg", 1)
    (tmp_path / "classes.json").write_text('{"classes": ["ground"]}')
    assert kind_of_data(tmp_path) == "segmentation"
    assert "save it as PNG" in check_data(tmp_path)["train"].find("file cannot be read").examples[0]


def test_parts_of_another_kind_of_data_are_no_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg", 1)
    write_image(tmp_path / "results" / "a.jpg", 1)
    with pytest.raises(DataError, match="no data set recognised"):
        kind_of_data(tmp_path)
    only_splits = tmp_path / "unlabelled"
    write_image(only_splits / "train" / "a.jpg", 1)
    write_image(only_splits / "test" / "a.jpg", 1)
    with pytest.raises(DataError, match="no data set recognised"):
        kind_of_data(only_splits)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    vehicles = write_classes(tmp_path / "vehicles", classes=("train", "bus", "boat"))
    assert kind_of_data(vehicles) == "classification"
    assert list(check_data(vehicles)["train"].class_counts) == ["boat", "bus", "train"]


def test_classes_with_folders_inside(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / "train" / name / "images" / "1.JPEG", ord(name))
        (tmp_path / "train" / name / "boxes.txt").write_text("1.JPEG 0 0 9 9")
    assert kind_of_data(tmp_path) == "classification"
    assert check_data(tmp_path)["train"].images == 2


def test_capitals_of_split_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "Train")
    write_classes(tmp_path / "TEST", seed=7)
    assert kind_of_data(tmp_path) == "classification"
    assert {name: report.images for name, report in check_data(tmp_path).items()} == {"train": 6, "test": 6}


def test_a_table_of_something_else_beside_class_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "train")
    (tmp_path / "train.csv").write_text("id,weight\n1,2\n")
    assert check_data(tmp_path)["train"].images == 6


def test_a_description_of_masks_is_no_yolo(tmp_path: Path) -> None:
    write_classes(tmp_path / "train")
    (tmp_path / "data.yaml").write_text("names: [a, b]\n")
    assert kind_of_data(tmp_path) == "classification"


def test_former_names_still_work(tmp_path: Path) -> None:
    from piip.data.class_splits import find_class_splits, list_images
    from piip.data.coco import read_coco
    from piip.data.detection.coco import read_coco as moved
    from piip.data.report import Findings
    from piip.data.splits import find_splits

    scenes = make_scenes(tmp_path / "scenes", train=1, val=1, size=(32, 32))
    assert read_coco is moved
    assert len(read_coco(*find_splits(scenes)["train"])[0].images) == 1
    found = find_class_splits(write_classes(tmp_path / "classes" / "train").parent)
    assert len(list_images(found["train"], Findings("x")).entries) == 6


def test_undescribed_masks_say_so(tmp_path: Path) -> None:
    masks = make_masks(tmp_path)
    (masks / "classes.json").write_text('{"classes": {"0": [1], "1": "b"}}')
    with pytest.raises(DataError, match="names must be texts"):
        check_data(masks)


def test_masks_that_nothing_describes_come_after_boxes(tmp_path: Path) -> None:
    write_voc(pictures(), tmp_path / "Annotations", tmp_path / "JPEGImages")
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(np.zeros((40, 60), dtype=np.uint8)).save(tmp_path / "SegmentationClass" / "train_b.png")
    assert kinds_of_data(tmp_path) == ["detection", "segmentation"]
    assert any("data for segmentation" in note for note in also_fits(tmp_path))
    (tmp_path / "classes.json").write_text('{"classes": ["background"]}')
    assert kinds_of_data(tmp_path) == ["segmentation", "detection"]


def test_images_inside_of_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="images inside"):
        kind_of_data(tmp_path)
