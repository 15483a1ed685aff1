"""Files of other tools with something else than they should hold, and with names, numbers and folders that are rare."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import Picture, labelme_shape, paint, save_labelme, write_cvat, write_dota, write_labelme, write_voc
from PIL import Image

from piip.data.detection.annotations import CocoData
from piip.data.detection.coco import read_split
from piip.data.detection.splits import find_splits
from piip.data.formats.hugging_face import card_names
from piip.data.report import CheckReport

BOX = ("cat", (1.0, 1.0, 9.0, 9.0))
RECT = {"shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 8, "height": 8},
        "region_attributes": {"class": "cat"}}  # fmt: skip


def read(root: Path) -> tuple[CocoData, CheckReport]:
    return read_split(find_splits(root)["train"])


def via(*regions: object, **more: object) -> dict[str, Any]:
    return {"a.png1": {"filename": "a.png", "size": 1, "regions": [RECT, *regions], **more}}


def shaped(**attributes: object) -> dict[str, Any]:
    return {"shape_attributes": attributes, "region_attributes": {"class": "cat"}}


def task(**more: object) -> dict[str, Any]:
    size = {"original_width": 60, "original_height": 40}
    value = {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["cat"]}
    result = [{"type": "rectanglelabels", "value": value, **size, "id": [1]},
              {"type": "labels", "value": {"labels": ["dog"]}, "id": {}}]  # fmt: skip
    return {"id": 1, "annotations": [{"result": result}], "data": {"image": "a.png"}} | more


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"shapes": [labelme_shape("cat", [(1, 1), (9, 1), (9, 9)], group_id=[1])], "imagePath": "a.png"}),
        ("via.json", via(shaped(name=["rect"]))),
        ("via.json", via(shaped(name="polygon", all_points_x=[1, 2, 9], all_points_y=5))),
        ("via.json", via() | {"b.png2": {"filename": "b.png", "regions": 5}}),
        ("export.json", [task(data={"text": "http://[1", "image": "a.png"})]),
        ("metadata.jsonl", {"file_name": "a.png", "objects": {"bbox": [[1, 1, 8, 8]] * 2, "category": ["cat"] * 2,
                                                              "segmentation": [None, 5]}}),
    ],
)  # fmt: skip
def test_one_odd_value_costs_no_more_than_its_object(name: str, content: object, tmp_path: Path) -> None:
    paint(Picture("a.png"), tmp_path / "train")
    (tmp_path / "train" / name).write_text(json.dumps(content))
    data, _ = read(tmp_path)
    assert [[data.classes[obj.label] for obj in image.objects] for image in data.images] == [["cat"]]


def test_runs_that_add_up_only_where_numbers_begin_anew_are_refused(tmp_path: Path) -> None:
    runs = ",".join(map(str, [2**62, 2**62, 2**62, 2**62 + 12]))  # 12, modulo 2**64
    mask = f'<mask label="cat" rle="{runs}" left="10" top="4" width="3" height="4"></mask>'
    write_cvat([Picture("a.png", boxes=[BOX])], tmp_path / "annotations.xml", tmp_path / "images", more=mask)
    data, report = read(tmp_path)
    assert len(data.images[0].objects) == 1
    assert report.find("run lengths that do not add up to the mask").count == 1


@pytest.mark.parametrize("size", [0, 3])
def test_an_outline_of_one_number_between_keyframes(size: int, tmp_path: Path) -> None:
    shapes = '<polygon frame="0" outside="0" points="5"/><polygon frame="2" outside="0" points="1,1;9,1;9,9"/>'
    meta = f"<meta><task><size>{size}</size><labels><label><name>cat</name></label></labels></task></meta>"
    (tmp_path / "annotations.xml").write_text(
        f'<annotations>{meta}<track id="0" label="cat">{shapes}</track></annotations>'
    )
    for number in range(3):
        paint(Picture(f"frame_{number}.png"), tmp_path / "images")
    if size == 0:
        with pytest.raises(ValueError, match="frames are not in"):
            read(tmp_path)
    else:
        assert [len(image.objects) for image in read(tmp_path)[0].images] == [0, 1, 1]


def test_an_image_that_via_lists_with_two_sizes_keeps_the_regions_of_both(tmp_path: Path) -> None:
    paint(Picture("a.png"), tmp_path)
    other = shaped(name="rect", x=20, y=20, width=5, height=5)
    (tmp_path / "via.json").write_text(json.dumps(via() | {"a.png2": via(other)["a.png1"] | {"size": 2}}))
    data, _ = read(tmp_path)
    assert sorted({obj.box for obj in data.images[0].objects}) == [(1, 1, 9, 9), (20, 20, 25, 25)]


@pytest.mark.parametrize("name", ["a#1.png", "a?1.png", "50%25.png"])
def test_paths_with_letters_that_mean_something_in_addresses(name: str, tmp_path: Path) -> None:
    if os.name == "nt" and "?" in name:
        pytest.skip("no such name there")
    paint(Picture(name), tmp_path)
    (tmp_path / "export.json").write_text(json.dumps([task(data={"image": f"images/{name}"})]))
    assert [image.path.name for image in read(tmp_path)[0].images] == [name]


@pytest.mark.parametrize("kind", ["voc", "dota", "labelme"])
def test_images_of_one_name_in_folders_of_their_own(kind: str, tmp_path: Path) -> None:
    folder = {"voc": "Annotations", "dota": "labelTxt", "labelme": "labels"}[kind]
    for number, part in enumerate("ab"):
        drawn = [Picture("1.png", 60 + number, boxes=[BOX] * (number == 0))]
        places = tmp_path / folder / part, tmp_path / "images" / part
        {"voc": write_voc, "dota": write_dota, "labelme": write_labelme}[kind](drawn, *places)
    for file in tmp_path.glob("labels/*/*.json"):  # as tools write it whose files were moved
        file.write_text(file.read_text().replace("1.png", "gone.png"))
    data, _ = read(tmp_path)
    found = {image.path.relative_to(tmp_path / "images").as_posix(): len(image.objects) for image in data.images}
    assert found == {"a/1.png": 1, "b/1.png": 0}


def test_images_inside_labelme_files_are_not_kept_in_memory(tmp_path: Path) -> None:
    inside = "A" * (1 << 20)
    for number in range(12):
        picture = Picture(f"{number}.png")
        paint(picture, tmp_path)
        file = tmp_path / f"{number}.json"
        save_labelme(file, picture, [labelme_shape("cat", [(1, 1), (9, 9)], "rectangle")])
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"imageData": inside}))
    tracemalloc.start()
    try:
        data, _ = read(tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data.images) == 12
    assert most < 6 * len(inside)


def test_numbers_of_classes_with_gaps_are_no_list_of_names(tmp_path: Path) -> None:
    names = "---\nfeatures:\n- dtype:\n    class_label:\n      names:\n        '{}': cat\n        '1': dog\n---\n"
    for first, found in (("0", ["cat", "dog"]), ("3", [])):
        (tmp_path / "README.md").write_text(names.format(first))
        assert card_names(tmp_path) == found


def test_masks_of_no_bytes_are_left_out(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    shapes = [labelme_shape("cat", [(1, 1)], "mask", mask=5), labelme_shape("cat", [(1, 1), (9, 9)], "rectangle")]
    save_labelme(tmp_path / "a.json", Picture("a.png"), shapes)
    data, report = read(tmp_path)
    assert len(data.images[0].objects) == 1
    assert report.find("mask that cannot be decoded").count == 1
