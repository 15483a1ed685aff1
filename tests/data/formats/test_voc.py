"""Pascal VOC's own particulars."""

from pathlib import Path

import pytest
from drawn import Picture, pictures, voc_object, write_voc

from piip.data.detection.coco import read_split
from piip.data.detection.splits import find_splits
from piip.data.report import DataError


def in_sets(root: Path, **lists: str) -> None:
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)


def test_lists_of_images_are_the_splits(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2007"
    write_voc(pictures(), root / "Annotations", root / "JPEGImages")
    lists = {"train": "train a\n", "trainval": "train a\ntrain_b\n", "cat_train": "train_b -1\n"}
    in_sets(root, val="train_b  1\n\ngone\n", **lists)
    splits = find_splits(tmp_path / "VOCdevkit")
    assert list(splits) == ["train", "val"]
    train, _ = read_split(splits["train"])
    val, report = read_split(splits["val"])
    assert [image.path.name for image in train.images] == ["train a.jpg"]
    assert [image.path.name for image in val.images] == ["train_b.jpg"]
    assert train.classes == val.classes == ("cat", "traffic light")
    assert report.find("listed image without an annotation file").examples == ["val.txt: gone"]


def test_two_sets_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write_voc(pictures(), tmp_path / year / "Annotations", tmp_path / year / "JPEGImages")
    with pytest.raises(DataError, match="VOC2007, VOC2012"):
        find_splits(tmp_path)
    assert find_splits(tmp_path / "VOC2012")


def test_the_sets_of_the_challenge_count_pixels_from_one(tmp_path: Path) -> None:
    drawn = [Picture("a.png", boxes=[("cat", (1, 1, 60, 40))])]
    write_voc(drawn, tmp_path / "Annotations", tmp_path / "JPEGImages", database="The VOC2012 Database")
    assert read_split(find_splits(tmp_path)["train"])[0].images[0].objects[0].box == (0, 0, 60, 40)


def test_the_image_called_like_the_file_counts(tmp_path: Path) -> None:
    write_voc([Picture("a.png", boxes=[("cat", (1, 1, 9, 9))])], tmp_path, tmp_path)
    text = (tmp_path / "a.xml").read_text()
    (tmp_path / "a.xml").write_text(text.replace("<filename>a.png", "<filename>IMG_0001.JPG"))
    data, report = read_split(find_splits(tmp_path)["train"])
    assert data.images[0].path.name == "a.png"
    assert report.find("annotation file that names another image (the one called like it is used)").count == 1


def test_outlines_difficult_objects_and_objects_without_a_box(tmp_path: Path) -> None:
    write_voc([Picture("a.png")], tmp_path, tmp_path)
    outline = "<polygon><x1>2</x1><y1>3</y1><x2>20</x2><y2>3</y2><x3>11</x3><y3>30</y3></polygon>"
    more = (voc_object("cat", (2, 3, 20, 30), outline + "<difficult>1</difficult>")
            + voc_object("dog", ("", 3, 20, 30)) + "<object><name>owl</name></object>")  # fmt: skip
    text = (tmp_path / "a.xml").read_text().replace("</annotation>", f"{more}</annotation>")
    (tmp_path / "a.xml").write_text(text)
    data, report = read_split(find_splits(tmp_path)["train"])
    (cat,) = data.images[0].objects
    assert (cat.segmentation, cat.box) == ([[2, 3, 20, 3, 11, 30]], (2, 3, 20, 30))
    assert data.classes == ("cat", "dog", "owl")
    for kind in ('object marked "difficult" (used like others)', "object without a box",
                 "box that is not four finite numbers"):  # fmt: skip
        assert report.find(kind).count == 1


def test_a_broken_file_and_an_image_without_one_are_counted(tmp_path: Path) -> None:
    write_voc(pictures(), tmp_path, tmp_path)
    (tmp_path / "train_b.xml").write_text((tmp_path / "train_b.xml").read_text()[:120])
    (tmp_path / "train_c.xml").unlink()
    report = read_split(find_splits(tmp_path)["train"])[1]
    assert report.images == 1
    assert "train_b.xml" in report.find("annotation file that cannot be read").examples[0]
    assert report.find("image without an annotation file (not used)").examples == ["train_c.jpg"]
