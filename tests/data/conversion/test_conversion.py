"""What is written anew says the same, and nothing is written over."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from class_folders import write_classes, write_image
from drawn import Picture, outlined, pictures, write_cvat, write_voc
from PIL import Image
from tests.mask_sets import make_masks
from typer.testing import CliRunner

import piip
from piip.cli import app
from piip.data.conversion import convert_data
from piip.data.conversion.traced import traced
from piip.data.detection.annotations import CocoData
from piip.data.detection.coco import read_split
from piip.data.detection.outlines import rasterise
from piip.data.detection.splits import find_splits
from piip.data.report import DataError
from piip.data.run_lengths import encode_mask
from piip.data.synthetic import make_scenes


def opened(path: Path) -> dict[str, CocoData]:
    return {split: read_split(place)[0] for split, place in find_splits(path).items()}


def said(data: CocoData, exact: bool = True) -> list[object]:
    """Images and objects, without ids and paths."""
    digits = 9 if exact else 3
    return [(image.path.name, image.size if exact else sorted(image.size),
             [(data.classes[obj.label], [round(side, digits) for side in obj.box], obj.crowd, outline(obj, digits))
              for obj in image.objects]) for image in data.images]  # fmt: skip


def outline(obj, digits: int) -> object:
    if not isinstance(obj.segmentation, list):
        return obj.segmentation
    return [[round(side, digits) for side in part] for part in obj.segmentation]


def coco(root: Path, annotations: list[dict], **image: object) -> Path:
    """One image of 60 x 40 as a COCO set."""
    (root / "train").mkdir(parents=True)
    Image.new("RGB", (60, 40), "grey").save(root / "train" / "a.png")
    records = [{"id": i, "image_id": 7, "category_id": 5, "iscrowd": 0} | one for i, one in enumerate(annotations, 1)]
    content = {"images": [{"id": 7, "file_name": "a.png", "width": 60, "height": 40} | image],
               "annotations": records, "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "no"}]}  # fmt: skip
    (root / "train.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_scenes_say_the_same_after_a_conversion(to: str, tmp_path: Path) -> None:
    scenes = make_scenes(tmp_path / "scenes", train=2, val=1, size=(48, 64))
    convert_data(scenes, tmp_path / "out", to)
    before, after = opened(scenes), opened(tmp_path / "out")
    assert list(after) == list(before) == ["train", "val"]
    for split, data in before.items():
        assert after[split].report.format == to.upper()
        assert after[split].classes == data.classes
        if to == "coco":
            assert said(after[split]) == said(data)
        for image, one in zip(after[split].images, data.images, strict=True):
            assert [obj.label for obj in image.objects] == [obj.label for obj in one.objects]
            for found, drawn in zip(image.objects, one.objects, strict=True):  # in YOLO's layout, masks become polygons
                masks = [rasterise(obj.segmentation, image.size) for obj in (found, drawn)]
                assert (masks[0] != masks[1]).mean() < 1e-3
    if to == "coco":
        assert after["train"].category_ids == before["train"].category_ids
        assert [image.id for image in after["train"].images] == [image.id for image in before["train"].images]


def test_other_tools_data_as_yolo_and_back_to_coco(tmp_path: Path) -> None:
    write_cvat(outlined(), tmp_path / "cvat" / "annotations.xml", tmp_path / "cvat" / "images")
    convert_data(tmp_path / "cvat", tmp_path / "yolo", "yolo")
    convert_data(tmp_path / "yolo", tmp_path / "coco", "coco")
    before, after = opened(tmp_path / "cvat")["train"], opened(tmp_path / "coco")["train"]
    assert said(after, exact=False) == said(before, exact=False)
    assert after.classes == before.classes


def test_splits_get_one_list_of_classes(tmp_path: Path) -> None:
    for split, drawn in (("train", pictures()), ("val", pictures("val")[1:])):
        write_cvat(drawn, tmp_path / "cvat" / split / "annotations.xml", tmp_path / "cvat" / split)
    convert_data(tmp_path / "cvat", tmp_path / "out")
    after = opened(tmp_path / "out")
    assert after["val"].classes == after["train"].classes == ("traffic light", "cat")
    assert not any(report.errors for report in piip.check_data(tmp_path / "out").values())


def test_what_yolo_cannot_say_is_counted(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:15, 10:30] = True
    box = {"bbox": [10, 5, 20, 10], "area": 200}
    corners = [[1, 1, 9, 1, 1, 9], [31, 1, 39, 1, 31, 9]]
    data = coco(tmp_path / "in", [
        box | {"segmentation": encode_mask(mask)},
        box | {"segmentation": [[10, 5, 30, 5, 30, 15]], "iscrowd": 1},
        {"bbox": [1, 1, 38, 8], "area": 64, "segmentation": corners},
    ])  # fmt: skip
    report = convert_data(data, tmp_path / "out", "yolo").reports["train"]
    assert report.find("crowd region, which YOLO's layout cannot say").count == 1
    assert report.find("mask written as a polygon along the edges of its pixels").count == 1
    written = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert written["splits"]["train"]["findings"][0]["kind"].startswith("crowd region")
    after = opened(tmp_path / "out")["train"]
    assert after.classes == ("cat", "no")
    rectangle, parts = after.images[0].objects
    assert rectangle.box == pytest.approx((10, 5, 30, 15))
    expected = rasterise(corners, (40, 60))
    assert np.array_equal(rasterise(parts.segmentation, (40, 60)), expected)


def test_a_traced_mask_has_the_same_pixels() -> None:
    rng = np.random.default_rng(0)
    disc = np.hypot(*(np.mgrid[:40, :60] - np.array([20, 30])[:, None, None])) < 15
    ring = disc & ~(np.hypot(*(np.mgrid[:40, :60] - np.array([20, 30])[:, None, None])) < 7)
    for mask in (disc, ring, np.ones((3, 4), bool), rng.random((12, 15)) < 0.5):
        lines = traced(mask)
        filled = np.zeros(mask.shape, bool)
        for line in lines:
            filled ^= rasterise([[float(side) for point in line for side in point]], mask.shape).astype(bool)
        assert np.array_equal(filled, mask)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_rotated_photos_are_written_upright(orientation: int, tmp_path: Path) -> None:
    data = coco(tmp_path / "in", [{"bbox": [10, 5, 20, 8], "area": 160}])
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[5:13, 10:30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(data / "train" / "a.png", exif=exif)
    before = opened(data)["train"].images[0]
    convert_data(data, tmp_path / "out", "yolo")
    after = opened(tmp_path / "out")["train"].images[0]
    convert_data(data, tmp_path / "coco")
    assert said(opened(tmp_path / "coco")["train"]) == said(opened(data)["train"])
    from piip.data.decode import decode_image

    x1, y1, x2, y2 = (round(side) for side in after.objects[0].box)
    bright = decode_image(after.path)[..., 0] > 0
    if not before.upright or orientation == 1:  # else the record is of the upright image
        assert bright[y1:y2, x1:x2].all()
        assert bright.sum() == (y2 - y1) * (x2 - x1)


def test_images_of_one_name_and_of_one_stem_stay_apart(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for place in ("a/1.png", "b/1.png", "b/1.jpg"):
        (root / "train" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(root / "train" / place)
    images = [{"id": i, "file_name": name} for i, name in enumerate(("a/1.png", "b/1.png", "b/1.jpg"))]
    boxes = [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [i, 1, 5, 5]} for i in range(3)]
    (root / "train.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]})
    )
    for to in ("coco", "yolo"):
        convert_data(root, tmp_path / to, to)
        data = opened(tmp_path / to)["train"]
        assert sorted(round(image.objects[0].box[0]) for image in data.images) == [0, 1, 2]


def test_classified_images_and_masks(tmp_path: Path) -> None:
    classes = write_classes(tmp_path / "classes" / "train").parent
    convert_data(classes, tmp_path / "table")
    before, after = (piip.open_data(path, "train") for path in (classes, tmp_path / "table"))
    assert after.classes == before.classes
    assert [label for _, label in after.images] == [label for _, label in before.images]
    masks = make_masks(tmp_path / "masks")
    convert_data(masks, tmp_path / "labelled")
    before, after = (piip.open_data(path, "train") for path in (masks, tmp_path / "labelled"))
    assert (after.classes, after.pixels) == (before.classes, before.pixels)


def test_nothing_is_written_over_or_left_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(pictures(), tmp_path / "voc", tmp_path / "voc")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("x")
    for out, reason in ((tmp_path / "taken", "name a new folder"), (tmp_path / "voc" / "out", "lies within")):
        with pytest.raises(ValueError, match=reason):
            convert_data(tmp_path / "voc", out)
    with pytest.raises(ValueError, match="use coco or yolo"):
        convert_data(tmp_path / "voc", tmp_path / "out", "tfrecord")
    monkeypatch.setattr("shutil.copy2", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        convert_data(tmp_path / "voc", tmp_path / "out")
    with pytest.raises(DataError):
        convert_data(tmp_path / "taken", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "voc"]
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_class_tables_name_files_whose_names_are_no_utf8(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_image(tmp_path / "classes" / "train" / name / os.fsdecode(b"a\xff.png"), len(name))
    convert_data(tmp_path / "classes", tmp_path / "out")
    train = piip.open_data(tmp_path / "out", "train")
    assert [train.classes[label] for _, label in train.images] == ["cat", "dog"]
    assert [path.name for path, _ in train.images] == ["a_dcff.png"] * 2


def test_an_empty_folder_that_is_there_stays_and_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc([Picture("a.png", boxes=[("cat", (1, 1, 9, 9))])], tmp_path / "voc", tmp_path / "voc")
    here = tmp_path / "here"
    here.mkdir()
    number = here.stat().st_ino  # of a mounted disk, or of the folder where a shell stands
    monkeypatch.chdir(here)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copy2", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            convert_data(tmp_path / "voc", ".")
    assert not list(here.iterdir())
    convert_data(tmp_path / "voc", ".")
    assert here.stat().st_ino == number
    assert sorted(path.name for path in here.iterdir()) == ["annotations", "conversion.json", "train"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "voc"]
    assert [len(image.objects) for image in opened(here)["train"].images] == [1]


def test_the_command_names_the_format_and_where_it_wrote(tmp_path: Path) -> None:
    write_voc([Picture("a.png", boxes=[("cat", (1, 1, 9, 9))])], tmp_path / "voc", tmp_path / "voc")
    out = tmp_path / "new" / "yolo"
    done = CliRunner().invoke(app, ["data", "convert", str(tmp_path / "voc"), str(out), "--to", "yolo"])
    assert done.exit_code == 0, done.output
    assert "Pascal VOC" in done.output
    assert f"written to {out}" in done.output
    assert (out / "labels" / "train" / "a.txt").read_text() == "0 0.083333333 0.125 0.13333333 0.2\n"
