"""Label Studio's own particulars."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import Picture, label_studio_box, label_studio_result, paint

from piip.data.detection.coco import read_split
from piip.data.detection.outlines import rasterise
from piip.data.detection.splits import find_splits
from piip.data.formats.brush import brush_mask
from piip.data.run_lengths import RunLengthError

PICTURE = Picture("a.png", 50, 20)
BOX = ("cat", (1.0, 1.0, 9.0, 9.0))


def packed(mask: np.ndarray) -> list[int]:
    """A mask as the tool packs it: RGBA values along the rows, in runs of one value, some of them one by one."""
    values = np.repeat(mask.astype(np.uint8).ravel() * 255, 4)
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (2, 4, 8, 16))
    changes = np.flatnonzero(np.diff(values)) + 1
    for number, run in enumerate(np.split(values, changes)):
        if number % 3 == 0:
            for part in np.split(run, range(4, len(run), 4)):
                bits += f"0{0:02b}{len(part) - 1:02b}" + "".join(f"{value:08b}" for value in part)
        else:
            bits += f"1{3:02b}{len(run) - 1:016b}{run[0]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def exported(root: Path, *tasks: dict) -> Path:
    paint(PICTURE, root)
    (root / "export.json").write_text(json.dumps(list(tasks)))
    return root


def task(*results: dict, **more: object) -> dict:
    return {
        "id": 1,
        "annotations": [{"result": list(results)}],
        "data": {"image": "/data/local-files/?d=x/a.png"},
    } | more


def test_brush_masks_are_the_pixels_that_were_painted(tmp_path: Path) -> None:
    painted = np.random.default_rng(0).random((20, 50)) < 0.4
    result = label_studio_result(PICTURE, "brush", "cat", {"format": "rle", "rle": packed(painted)})
    data, _ = read_split(find_splits(exported(tmp_path, task(result)))["train"])
    assert np.array_equal(rasterise(data.images[0].objects[0].segmentation, (20, 50)), painted)


@pytest.mark.parametrize("values", [None, "x", [], [300], [[1]], packed(np.ones((3, 3)))[:-2], packed(np.ones((2, 2)))])
def test_brush_masks_of_no_use_are_refused(values: object) -> None:
    with pytest.raises(RunLengthError):
        brush_mask(values, 3, 3)


def test_results_with_their_labels_apart_turned_boxes_and_ellipses(tmp_path: Path) -> None:
    box = label_studio_box(PICTURE, *BOX)
    apart = box | {
        "id": "r1",
        "type": "rectangle",
        "value": {k: box["value"][k] for k in ("x", "y", "width", "height")},
    }
    label = {"id": "r1", "type": "labels", "value": {"labels": ["dog"]}, "original_width": 50, "original_height": 20}
    turned = label_studio_box(PICTURE, "cat", (20, 2, 30, 6))
    turned["value"]["rotation"] = 90
    disc = label_studio_result(PICTURE, "ellipse", "disc", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25})
    data, report = read_split(find_splits(exported(tmp_path, task(apart, label, turned, disc)))["train"])
    found = {data.classes[obj.label]: obj for obj in data.images[0].objects}
    assert np.allclose(found["dog"].box, BOX[1])
    assert np.allclose(found["cat"].box, (16, 2, 20, 12))  # about its corner
    assert np.allclose(found["disc"].box, (20, 5, 30, 15))
    assert report.find("rotated box (the upright one around it is used)").count == 1


def test_what_is_not_used_is_counted(tmp_path: Path) -> None:
    box = label_studio_box(PICTURE, *BOX)
    choice = {"type": "choices", "value": {"choices": ["night"]}}
    several = [{"result": [box], "was_cancelled": True}, {"result": [box]}, {"result": []}]
    tasks = (task(box, choice, annotations=several), task(id=2, annotations=[]), "task", task(choice, id=3))
    data, report = read_split(find_splits(exported(tmp_path, *tasks))["train"])
    assert [len(image.objects) for image in data.images] == [1, 0]
    for kind in ("task without an annotation", "task that is not an object",
                 "task with several annotations (the first is used)",
                 "result that is no rectangle, polygon, ellipse or brush mask"):  # fmt: skip
        assert report.find(kind).count == 1


@pytest.mark.parametrize(
    "address",
    ["a.png", "/data/upload/7/1a2b3c4d-a.png", "s3://bucket/folder/a.png", "http://host/x/a.png?X=1",
     "C:\\photos\\a.png", "/data/local-files/?d=photos%2Fa.png"],
)  # fmt: skip
def test_addresses_of_images(address: str, tmp_path: Path) -> None:
    root = exported(tmp_path, task(label_studio_box(PICTURE, *BOX), data={"text": "x", "image": address}))
    data, _ = read_split(find_splits(root)["train"])
    assert [image.path.name for image in data.images] == ["a.png"]
