"""VIA's, DOTA's and Open Images' own particulars."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import Picture, paint, pictures, write_dota, write_open_images, write_via

from piip.data.detection.coco import read_split
from piip.data.detection.splits import find_splits
from piip.data.kinds import kind_of_data


def test_via_project_files_and_choices(tmp_path: Path) -> None:
    paint(Picture("a.png"), tmp_path)
    shapes = [
        ({"name": "circle", "cx": 30, "cy": 20, "r": 10}, {"kind": {"cat": False, "dog": True}}),
        ({"name": "ellipse", "cx": 30, "cy": 20, "rx": 10, "ry": 5, "theta": 1.5707963267948966}, {"kind": "dog"}),
        ({"name": "point", "cx": 30, "cy": 20}, {"kind": "nose"}),
        ({"name": "rect", "x": 1, "y": 1, "width": "a", "height": 3}, {"kind": "dog"}),
        ({"name": "rect", "x": 1, "y": 1, "width": 3, "height": 3}, {"colour": "red", "size": "small"}),
    ]
    regions = {str(i): {"shape_attributes": s, "region_attributes": a} for i, (s, a) in enumerate(shapes)}
    entry = {"filename": "a.png", "size": 1, "regions": regions, "file_attributes": {}}
    project = {"_via_settings": {}, "_via_img_metadata": {"a.png1": entry}, "_via_attributes": {}}
    (tmp_path / "via_project.json").write_text(json.dumps(project))
    data, report = read_split(find_splits(tmp_path)["train"])
    disc, turned = data.images[0].objects
    assert data.classes == ("dog",)
    assert np.allclose(disc.box, (20, 10, 40, 30))
    assert np.allclose(turned.box, (25, 10, 35, 30))
    for kind in ("region that is no rectangle, polygon, circle or ellipse", "region with something else than numbers",
                 "object without a class"):  # fmt: skip
        assert report.find(kind).count == 1


def test_via_tables_with_broken_cells(tmp_path: Path) -> None:
    write_via(pictures()[:1], tmp_path / "via.csv", tmp_path)
    with (tmp_path / "via.csv").open("a") as stream:
        stream.write('train a.jpg,1,{},1,0,"{""name""",{}\n')
    data, report = read_split(find_splits(tmp_path / "via.csv")["train"])
    assert len(data.images[0].objects) == 2
    assert report.find("region that cannot be read").count == 1


def test_dota_turned_boxes_and_odd_lines(tmp_path: Path) -> None:
    root = tmp_path / "train"
    write_dota([Picture("P1.png")], root / "labelTxt", root / "images")
    with (root / "labelTxt" / "P1.txt").open("a") as stream:
        stream.write("20.0 5.0 30 15 20 25 10 15 plane 0\nnot a box at all\n1 1 9 1 9 9 1 9\n")
    data, report = read_split(find_splits(tmp_path)["train"])
    assert [(data.classes[obj.label], obj.box) for obj in data.images[0].objects] == [("plane", (10, 5, 30, 25))]
    assert not data.has_masks
    assert report.find("line that is not four corners and a class").count == 2
    assert report.find("rotated box (the upright one around it is used)").count == 1


def test_open_images_splits_names_groups_and_what_is_not_there(tmp_path: Path) -> None:
    write_open_images(pictures()[:1], tmp_path, "train")
    write_open_images(pictures("val")[:1], tmp_path, "validation")
    with (tmp_path / "train-annotations-bbox.csv").open("a") as stream:
        stream.write("train a,x,/m/01yrx,1,0.5,0.6,0.5,0.6,0,0,1,0,0\n")  # a group
        stream.write("train a,x,/m/01yrx,0,0.5,0.6,0.5,0.6,0,0,0,0,0\n")  # verified not to be there
        stream.write("gone,x,/m/01yrx,1,0.5,0.6,0.5,0.6,0,0,0,0,0\n")
        stream.write("train a,x,/m/unnamed,1,0.1,0.2,0.1,0.2,0,0,0,0,0\n")
    assert kind_of_data(tmp_path) == kind_of_data(tmp_path / "train-annotations-bbox.csv") == "detection"
    splits = find_splits(tmp_path)
    assert list(splits) == ["train", "val"]
    data, report = read_split(splits["train"])
    assert data.classes == ("/m/unnamed", "cat", "traffic light")
    assert [obj.crowd for obj in data.images[0].objects] == [False, False, True, False]
    assert report.find("row that says that a class is not there").count == 1
    assert "gone" in report.find("image file that is missing or cannot be read").examples[0]


def test_a_table_of_boxes_is_told_from_one_of_classes(tmp_path: Path) -> None:
    paint(Picture("a.png"), tmp_path)
    (tmp_path / "train.csv").write_text("filename;class;x1;y1;x2;y2\na.png;cat;1;1;9;\n a.png;dog;1;2;9;8\n")
    assert kind_of_data(tmp_path) == "detection"
    data, report = read_split(find_splits(tmp_path)["train"])
    assert [(data.classes[obj.label], obj.box) for obj in data.images[0].objects] == [("dog", (1, 2, 9, 8))]
    assert report.find("box that is not four finite numbers").count == 1


@pytest.mark.parametrize("name", ["via.json", "via.csv"])
def test_a_file_by_itself(name: str, tmp_path: Path) -> None:
    write_via(pictures(), tmp_path / name, tmp_path)
    assert kind_of_data(tmp_path / name) == "detection"
    assert len(read_split(find_splits(tmp_path / name)["train"])[0].images) == 3
