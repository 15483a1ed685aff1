"""YOLO's data sets become COCO's form: boxes, outlines, layouts, and what is wrong with them."""

from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import yaml

from piip.data.detection.check import check
from piip.data.detection.coco import CocoData, read_coco
from piip.data.detection.description import load, yolo_names
from piip.data.detection.splits import find_splits
from piip.data.detection.yolo import label_file
from piip.data.kinds import kind_of_data
from piip.data.report import CheckReport, DataError

SIZE = (80, 40)
"""width, height"""


def image(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (9, 9, 9)).save(path)
    return path


def labelled(path: Path, *lines: str) -> Path:
    label = label_file(image(path))
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text("\n".join(lines))
    return path


def data_set(root: Path, **content: Any) -> Path:
    """images/{train,val}, labels/{train,val} and data.yaml; one object in val."""
    labelled(root / "images" / "val" / "v.png", "1 0.5 0.5 0.5 0.5")
    usual = {"train": "images/train", "val": "images/val", "names": ["cat", "dog"]}
    (root / "data.yaml").write_text(yaml.safe_dump(usual | content))
    return root


def read(root: Path, split: str = "train") -> tuple[CocoData, CheckReport]:
    found = find_splits(root)[split]  # type: ignore[index]
    return read_coco(*found)


def kinds(report: CheckReport) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in report.sorted_findings()}


def test_boxes_are_in_pixels(tmp_path: Path) -> None:
    labelled(tmp_path / "images" / "train" / "a.png", "0 0.5 0.5 0.25 0.5", "1 0.1 0.2 0.1 0.2", "")
    image(tmp_path / "images" / "train" / "deep" / "empty.png")
    data, report = read(data_set(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.category_ids == (0, 1)
    assert [entry.path.name for entry in data.images] == ["a.png", "empty.png"]
    first, second = data.images[0].objects
    assert first.box == pytest.approx((30, 10, 50, 30))
    assert first.area == pytest.approx(400)
    assert (first.label, second.label) == (0, 1)
    assert second.box == pytest.approx((4, 4, 12, 12))
    assert data.images[1].objects == ()
    assert not data.has_masks
    assert kinds(report) == {"image without objects": "note"}
    assert kind_of_data(tmp_path) == kind_of_data(tmp_path / "data.yaml") == "detection"
    assert set(find_splits(tmp_path / "data.yaml")) == {"train", "val"}


def test_outlines_are_polygons(tmp_path: Path) -> None:
    labelled(tmp_path / "images" / "train" / "a.png", "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75")
    data, report = read(data_set(tmp_path))
    (obj,) = data.images[0].objects
    assert data.has_masks
    assert obj.segmentation == [pytest.approx([20, 10, 60, 10, 60, 30, 20, 30])]
    assert obj.box == pytest.approx((20, 10, 60, 30))
    assert obj.area == pytest.approx(800)
    assert kinds(report) == {"class without objects": "note"}


def test_turned_images_are_upright(tmp_path: Path) -> None:
    path = labelled(tmp_path / "images" / "train" / "a.jpg", "0 0.5 0.25 1.0 0.5")
    with PIL.Image.open(path) as opened:
        exif = opened.getexif()
        exif[0x0112] = 6  # a quarter turn: 40 wide, 80 high
        opened.save(path, exif=exif)
    data, _ = read(data_set(tmp_path))
    assert data.images[0].size == (80, 40)
    assert data.images[0].upright
    assert data.images[0].objects[0].box == pytest.approx((0, 0, 40, 40))


@pytest.mark.parametrize(
    ("content", "folder"),
    [
        ({"train": "../train/images", "val": "../valid/images"}, "train/images"),  # Roboflow
        ({"path": "inside", "train": "images/train"}, "inside/images/train"),
        ({"path": "/another/machine", "train": "images/train"}, "images/train"),
        ({"names": {0: "cat", 1: "dog"}}, "images/train"),
        ({"train": "plain"}, "plain"),  # labels beside the images
    ],
)
def test_layouts(content: dict[str, Any], folder: str, tmp_path: Path) -> None:
    labelled(tmp_path / folder / "a.png", "0 0.5 0.5 0.5 0.5")
    data, _ = read(data_set(tmp_path, **content))
    assert [len(entry.objects) for entry in data.images] == [1]


def test_a_list_of_images(tmp_path: Path) -> None:
    labelled(tmp_path / "images" / "a.png", "0 0.5 0.5 0.5 0.5")
    image(tmp_path / "images" / "b.png")
    (tmp_path / "train.txt").write_text(f"./images/a.png\n{tmp_path}/images/b.png\n\nimages/gone.png\n")
    data, report = read(data_set(tmp_path, train="train.txt"))
    assert [len(entry.objects) for entry in data.images] == [1, 0]
    assert kinds(report)["image file that is missing or cannot be read"] == "left out"


def test_what_is_wrong_is_reported_and_left_out(tmp_path: Path) -> None:
    lines = ["0 0.5 0.5 0.5 0.5", "cat 0.5 0.5 0.5 0.5", "0 0.5 0.5 0.5", "0.5 0.5 0.5 0.5 0.5",
             "7 0.5 0.5 0.5 0.5", "0 nan 0.5 0.5 0.5", "0 0.5 0.5 -0.5 0.5", "0 3 3 0.5 0.5", "0 0.9 0.5 0.4 0.5",
             "0 0.1 0.1 0.2 0.2 0.3", "0 0.5 0.5 0.5 0.5"]  # fmt: skip
    labelled(tmp_path / "images" / "train" / "a.png", *lines)
    (tmp_path / "images" / "train" / "broken.png").write_bytes(b"\x89PNG")
    reports = check(data_set(tmp_path))
    report = reports["train"]
    found = kinds(report)
    for kind in ("label line that is neither a class and a box nor a class and an outline", "unknown category",
                 "box that is not four finite numbers", "box with a negative side", "box wholly outside the image",
                 "image file that is missing or cannot be read"):  # fmt: skip
        assert found[kind] == "left out"
    assert found["box that reaches outside the image (clipped)"] == "repaired"
    assert found["object annotated twice (same class and box)"] == "note"
    assert (report.images, report.objects) == (1, 3)
    text = " ".join(example for finding in report.sorted_findings() for example in finding.examples)
    assert "a.txt, line 2" in text
    assert reports["val"].objects == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: {a: b}\nnames: [cat]", "one folder or one list of images"),
        ("train: [images, b]\nnames: [cat]", "names b, which do not exist"),
        ("train: images\nnames: [[cat]]", "names must be texts"),
        ("train: nowhere\nnames: [cat]", "none of its image folders exists: nowhere"),
        ("train: images\nnames: 3", "`names` must list the classes"),
        ("train: images\nnames: {x: cat}", "has 'x' for a number"),
        ("train: [", "not readable as YAML"),
        ("- 1", "not a YOLO data set"),
        ("train: images\nnames: !!python/object/apply:os.system [echo]", "not readable as YAML"),
    ],
)
def test_descriptions_that_cannot_be_used(content: str, message: str, tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_only_one_file_that_describes_classes_counts(tmp_path: Path) -> None:
    labelled(tmp_path / "images" / "train" / "a.png", "0 0.5 0.5 0.5 0.5")
    data_set(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "animals.yaml")
    (tmp_path / "other.yaml").write_text("a: 1")
    assert set(find_splits(tmp_path)) == {"train", "val"}
    with pytest.raises(DataError, match=r"no data set recognised.*YOLO's data\.yaml"):
        find_splits(tmp_path / "images")


def test_several_folders_and_lists(tmp_path: Path) -> None:
    labelled(tmp_path / "images" / "v1" / "a.png", "0 0.5 0.5 0.5 0.5")
    labelled(tmp_path / "images" / "v2" / "a.png", "1 0.5 0.5 0.5 0.5", "1 0.2 0.2 0.1 0.1")
    labelled(tmp_path / "more" / "images" / "c.png", "1 0.5 0.5 0.5 0.5")
    (tmp_path / "more" / "list.txt").write_text("images/c.png\n")
    data, _ = read(data_set(tmp_path, train=["images/v1", "images/v2", "more/list.txt"]))
    assert [[obj.label for obj in entry.objects] for entry in data.images] == [[0], [1, 1], [1]]


def test_windows_paths_and_capitals(tmp_path: Path) -> None:
    labelled(tmp_path / "Images" / "Train" / "a.png", "0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text("path: C:\\Users\\me\\set\ntrain: images\\train\nnames: [cat]\n")
    data, _ = read(tmp_path)
    assert [len(entry.objects) for entry in data.images] == [1]


def test_labels_in_other_capitals(tmp_path: Path) -> None:
    image(tmp_path / "Images" / "Train" / "A.png")
    (tmp_path / "Labels" / "train").mkdir(parents=True)
    (tmp_path / "Labels" / "train" / "a.TXT").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "Labels" / "train").rename(tmp_path / "Labels" / "Train")
    (tmp_path / "data.yaml").write_text("train: Images/Train\nnames: [cat]\n")
    data, _ = read(tmp_path)
    assert [len(entry.objects) for entry in data.images] == [1]


def test_byte_order_marks_in_front_of_labels_and_lists(tmp_path: Path) -> None:
    path = labelled(tmp_path / "images" / "train" / "a.png")
    label_file(path).write_bytes("0 0.5 0.5 0.5 0.5\r\n1 0.2 0.2 0.1 0.1\r\n".encode("utf-8-sig"))
    (tmp_path / "train.txt").write_bytes("images/train/a.png\r\n".encode("utf-8-sig"))
    data, report = read(data_set(tmp_path, train="train.txt"))
    assert [[obj.label for obj in entry.objects] for entry in data.images] == [[0, 1]]
    assert not report.errors


@pytest.mark.parametrize("keypoints", [[2, 2], [3, 3], [17, 3], [1, 2]])
def test_lines_of_poses_are_boxes(tmp_path: Path, keypoints: list[int]) -> None:
    points = " 0.1" * (keypoints[0] * keypoints[1])
    labelled(tmp_path / "images" / "train" / "a.png", f"0 0.5 0.5 0.25 0.5{points}")
    data, report = read(data_set(tmp_path, kpt_shape=keypoints))
    width, height = SIZE
    assert data.images[0].objects[0].box == (0.375 * width, 0.25 * height, 0.625 * width, 0.75 * height)
    assert not data.has_masks
    assert report.objects == 1


def test_names_as_they_are_written(tmp_path: Path) -> None:
    labelled(tmp_path / "images" / "train" / "a.png", "1 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text('train: images/train\nnames: {"0": no, 1: 010, 2: 12:30}\n')
    assert read(tmp_path)[0].classes == ("no", "010", "12:30")


def test_only_folders_and_lists_of_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("root:x:0:0\n")
    (tmp_path / "data.yaml").write_text(f"train: {tmp_path}/passwords\nnames: [cat]\n")
    with pytest.raises(DataError, match="none of its image folders exists"):
        read(tmp_path)


def test_quoted_numbers_are_numbers(tmp_path):
    file = tmp_path / "data.yaml"
    assert yolo_names(file, {"0": "cat", "10": "owl", "2": "no"}) == {0: "cat", 2: "no", 10: "owl"}
    file.write_text("""names: {"0": cat, '1': dog}\n""")
    assert yolo_names(file, load(file)["names"]) == {0: "cat", 1: "dog"}
