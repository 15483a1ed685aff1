"""What was drawn is what is read, whatever tool wrote it down."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from drawn import (
    Picture,
    outlined,
    pictures,
    write_box_table,
    write_cvat,
    write_dota,
    write_label_studio,
    write_labelme,
    write_open_images,
    write_via,
    write_voc,
)

from piip.data.detection.check import check
from piip.data.detection.coco import CocoData, read_split
from piip.data.detection.splits import find_splits
from piip.data.kinds import kind_of_data

Writer = Callable[[list[Picture], Path], object]

WRITERS: dict[str, Writer] = {
    "Pascal VOC": lambda drawn, root: write_voc(drawn, root / "Annotations", root / "JPEGImages"),
    "Pascal VOC ": lambda drawn, root: write_voc(drawn, root, root),
    "CVAT for images": lambda drawn, root: write_cvat(drawn, root / "annotations.xml", root / "images"),
    "LabelMe": lambda drawn, root: write_labelme(drawn, root, root),
    "LabelMe ": lambda drawn, root: write_labelme(drawn, root / "labels", root / "images"),
    "Label Studio": lambda drawn, root: write_label_studio(drawn, root / "export.json", root / "images"),
    "Label Studio ": lambda drawn, root: write_label_studio(drawn, root / "min.json", root, least=True),
    "VIA": lambda drawn, root: write_via(drawn, root / "via_region_data.json", root),
    "VIA ": lambda drawn, root: write_via(drawn, root / "via_export.csv", root),
    "DOTA": lambda drawn, root: write_dota(drawn, root / "labelTxt", root / "images"),
    "Open Images": lambda drawn, root: write_open_images(drawn, root, "train"),
    "table of boxes": lambda drawn, root: write_box_table(drawn, root / "_annotations.csv", root),
}
BOXES_ONLY = ("Pascal VOC", "Pascal VOC ", "DOTA", "Open Images", "table of boxes")
LISTS_OBJECTS = ("Open Images", "table of boxes")
"""formats in which an image without objects is not there at all"""
WORDS = ("DOTA",)
"""formats whose classes are words without spaces"""
OWN_LISTS = ("CVAT", "Label Studio", "VIA", "Open", "table")
"""formats with one file for each split, and so with its own list of classes; beginnings of their names"""


def opened(root: Path, split: str = "train") -> CocoData:
    return read_split(find_splits(root)[split])[0]


def fitting(name: str, drawn: list[Picture]) -> list[Picture]:
    """The same pictures, without what a format cannot say."""
    if name in WORDS:
        drawn = [replace(p, boxes=[(cls.replace(" ", "_"), box) for cls, box in p.boxes]) for p in drawn]
    return [picture for picture in drawn if name not in LISTS_OBJECTS or picture.boxes]


def objects(data: CocoData) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    return {image.path.name: [(data.classes[obj.label], obj.box) for obj in image.objects] for image in data.images}


@pytest.mark.parametrize("name", WRITERS)
def test_boxes_are_read_as_they_were_drawn(name: str, tmp_path: Path) -> None:
    drawn = fitting(name, pictures())
    WRITERS[name](drawn, tmp_path)
    data = opened(tmp_path)
    assert kind_of_data(tmp_path) == "detection"
    assert data.report.format == name.strip()
    assert [image.size for image in data.images] == [(picture.height, picture.width) for picture in drawn]
    assert {image.path.name for image in data.images} == {picture.name for picture in drawn}
    for picture in drawn:
        found = objects(data)[picture.name]
        assert [cls for cls, _ in found] == [cls for cls, _ in picture.boxes]
        assert [box for _, box in found] == [pytest.approx(box, abs=1e-6) for _, box in picture.boxes]
    assert sorted(data.classes) == sorted({cls for picture in drawn for cls, _ in picture.boxes})
    quiet = {"image without objects", "image record without width and height"}
    assert {finding.kind for finding in data.report.findings} <= quiet
    assert not data.has_masks


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in BOXES_ONLY])
def test_outlines_are_read_as_they_were_drawn(name: str, tmp_path: Path) -> None:
    WRITERS[name](outlined(), tmp_path)
    data = opened(tmp_path)
    assert data.has_masks
    for image, picture in zip(data.images, outlined(), strict=True):
        assert [data.classes[obj.label] for obj in image.objects] == [cls for cls, _ in picture.polygons]
        for obj, (_, points) in zip(image.objects, picture.polygons, strict=True):
            assert obj.segmentation == [pytest.approx([side for point in points for side in point], abs=1e-6)]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("folder", "expected"), [("Valid", "val"), ("test", "test")])
def test_a_folder_per_split(name: str, folder: str, expected: str, tmp_path: Path) -> None:
    drawn = fitting(name, pictures()), fitting(name, pictures("other")[1:])
    for place, some in zip(("train", folder), drawn, strict=True):
        (tmp_path / place).mkdir()
        WRITERS[name](some, tmp_path / place)
    assert list(find_splits(tmp_path)) == ["train", expected]
    other = opened(tmp_path, expected)
    assert [image.path.name for image in other.images] == [picture.name for picture in drawn[1]]
    assert other.classes == (("cat",) if name.startswith(OWN_LISTS) else opened(tmp_path).classes)
    assert all(not report.errors for report in check(tmp_path).values())


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_image_is_counted_and_named(name: str, tmp_path: Path) -> None:
    drawn = fitting(name, pictures())
    WRITERS[name](drawn, tmp_path)
    next(tmp_path.rglob("train_b.jpg")).unlink()
    report = opened(tmp_path).report
    assert (report.images, report.listed) == (len(drawn) - 1, len(drawn))
    assert "train_b" in report.find("image file that is missing or cannot be read").examples[0]


@pytest.mark.parametrize("name", WRITERS)
def test_capitals_byte_order_marks_and_other_unicode_forms(name: str, tmp_path: Path) -> None:
    WRITERS[name](fitting(name, [Picture("caf\u00e9.jpg", boxes=[("chaise à bras", (1, 2, 30, 20))])]), tmp_path)
    next(tmp_path.rglob("caf*.jpg")).rename(next(tmp_path.rglob("caf*.jpg")).with_name("cafe\u0301.JPG"))
    files = [file for suffix in ("xml", "json", "csv", "txt") for file in tmp_path.rglob(f"*.{suffix}")]
    for file in files:
        text = file.read_text(encoding="utf-8")
        file.unlink()
        encoding = "utf-8-sig" if file.suffix == ".xml" else "utf-16"
        file.with_suffix(file.suffix.upper()).write_text(text, encoding=encoding)
    data = opened(tmp_path)
    assert data.classes == ("chaise à bras" if name not in WORDS else "chaise_à_bras",)
    assert [image.path.name for image in data.images] == ["cafe\u0301.JPG"]


@pytest.mark.parametrize("name", WRITERS)
def test_boxes_of_no_use_are_counted(name: str, tmp_path: Path) -> None:
    drawn = [("cat", (1.0, 1.0, 9.0, 9.0)), ("cat", (5.0, 5.0, 5.0, 9.0)), ("cat", (70.0, 5.0, 80.0, 9.0)),
             ("cat", (50.0, 5.0, 80.0, 9.0))]  # fmt: skip
    WRITERS[name]([Picture("a.png", boxes=drawn)], tmp_path)
    data = opened(tmp_path)
    found = [obj.box for obj in data.images[0].objects]
    assert found == [pytest.approx((1, 1, 9, 9)), pytest.approx((50, 5, 60, 9))]
    kinds = {finding.kind for finding in data.report.findings} - {"image record without width and height"}
    assert kinds == {"box of zero size", "box wholly outside the image", "box that reaches outside the image (clipped)"}


@pytest.mark.parametrize("name", WRITERS)
def test_names_that_are_numbers_or_odd(name: str, tmp_path: Path) -> None:
    names = ["10", "9", "no", "a & <b>" if name not in WORDS else "a&b", "[red]"]
    WRITERS[name]([Picture("a.png", boxes=[(cls, (1, 1, 9 + i, 9)) for i, cls in enumerate(names)])], tmp_path)
    assert [cls for cls, _ in objects(opened(tmp_path))["a.png"]] == names
