"""What was drawn is what is read, whatever tool wrote it down."""

from collections.abc import Callable
from pathlib import Path

import pytest
from drawn import Picture, outlined, pictures, write_cvat, write_labelme, write_voc

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
}
BOXES_ONLY = ("Pascal VOC", "Pascal VOC ")


def opened(root: Path, split: str = "train") -> CocoData:
    return read_split(find_splits(root)[split])[0]


def objects(data: CocoData) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    return {image.path.name: [(data.classes[obj.label], obj.box) for obj in image.objects] for image in data.images}


@pytest.mark.parametrize("name", WRITERS)
def test_boxes_are_read_as_they_were_drawn(name: str, tmp_path: Path) -> None:
    WRITERS[name](pictures(), tmp_path)
    data = opened(tmp_path)
    assert kind_of_data(tmp_path) == "detection"
    assert data.report.format == name.strip()
    assert objects(data) == {picture.name: picture.boxes for picture in pictures()}
    assert [image.size for image in data.images] == [(picture.height, picture.width) for picture in pictures()]
    assert sorted(data.classes) == ["cat", "traffic light"]
    assert {finding.kind for finding in data.report.findings} <= {"image without objects"}
    assert not data.has_masks


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in BOXES_ONLY])
def test_outlines_are_read_as_they_were_drawn(name: str, tmp_path: Path) -> None:
    WRITERS[name](outlined(), tmp_path)
    data = opened(tmp_path)
    assert data.has_masks
    for image, picture in zip(data.images, outlined(), strict=True):
        found = [(data.classes[obj.label], obj.segmentation) for obj in image.objects]
        assert found == [(cls, [[side for point in points for side in point]]) for cls, points in picture.polygons]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("folder", "expected"), [("Valid", "val"), ("test", "test")])
def test_a_folder_per_split(name: str, folder: str, expected: str, tmp_path: Path) -> None:
    WRITERS[name](pictures(), tmp_path / "train")
    WRITERS[name](pictures("other")[1:], tmp_path / folder)
    assert list(find_splits(tmp_path)) == ["train", expected]
    other = opened(tmp_path, expected)
    assert [image.path.name for image in other.images] == ["other_b.jpg", "other_c.jpg"]
    # where no file declares the classes, those of all splits are one list
    assert other.classes == (("cat",) if name.startswith("CVAT") else opened(tmp_path).classes)


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_image_is_counted_and_named(name: str, tmp_path: Path) -> None:
    WRITERS[name](pictures(), tmp_path)
    next(tmp_path.rglob("train_b.jpg")).unlink()
    report = opened(tmp_path).report
    assert (report.images, report.listed) == (2, 3)
    assert "train_b" in report.find("image file that is missing or cannot be read").examples[0]


@pytest.mark.parametrize("name", WRITERS)
def test_capitals_byte_order_marks_and_other_unicode_forms(name: str, tmp_path: Path) -> None:
    WRITERS[name]([Picture("caf\u00e9.jpg", boxes=[("chaise à bras", (1, 2, 30, 20))])], tmp_path)
    next(tmp_path.rglob("caf*.jpg")).rename(next(tmp_path.rglob("caf*.jpg")).with_name("cafe\u0301.JPG"))
    for file in [*tmp_path.rglob("*.xml"), *tmp_path.rglob("*.json")]:
        text = file.read_text(encoding="utf-8")
        file.unlink()
        encoding = "utf-8-sig" if file.suffix == ".xml" else "utf-16"
        file.with_suffix(file.suffix.upper()).write_text(text, encoding=encoding)
    data = opened(tmp_path)
    assert data.classes == ("chaise à bras",)
    assert [image.path.name for image in data.images] == ["cafe\u0301.JPG"]


@pytest.mark.parametrize("name", WRITERS)
def test_boxes_of_no_use_are_counted(name: str, tmp_path: Path) -> None:
    drawn = [("cat", (1.0, 1.0, 9.0, 9.0)), ("cat", (5.0, 5.0, 5.0, 9.0)), ("cat", (70.0, 5.0, 80.0, 9.0)),
             ("cat", (50.0, 5.0, 80.0, 9.0))]  # fmt: skip
    WRITERS[name]([Picture("a.png", boxes=drawn)], tmp_path)
    data = opened(tmp_path)
    assert [obj.box for obj in data.images[0].objects] == [(1, 1, 9, 9), (50, 5, 60, 9)]
    kinds = {finding.kind for finding in data.report.findings}
    assert kinds == {"box of zero size", "box wholly outside the image", "box that reaches outside the image (clipped)"}


@pytest.mark.parametrize("name", WRITERS)
def test_names_that_are_numbers_or_odd(name: str, tmp_path: Path) -> None:
    names = ["10", "9", "no", "a & <b>", "[red]"]
    WRITERS[name]([Picture("a.png", boxes=[(cls, (1, 1, 9 + i, 9)) for i, cls in enumerate(names)])], tmp_path)
    assert [cls for cls, _ in objects(opened(tmp_path))["a.png"]] == names
