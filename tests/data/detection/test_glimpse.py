"""COCO files are told from others by a look at both ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from piip.data.detection.glimpse import PEEK_BYTES, image_names, is_coco

RECORD = {"id": 1, "file_name": "train/1.jpg", "width": 4, "height": 4}
PLACED = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}
CATEGORY = {"id": 1, "name": "images"}


def put(tmp_path: Path, content: Any, encoding: str = "utf-8") -> Path:
    file = tmp_path / "a.json"
    file.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode(encoding))
    return file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("many", ["none", "images", "annotations", "categories"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_coco_in_any_order_and_of_any_size(tmp_path: Path, many: str, first: int, encoding: str) -> None:
    parts: dict[str, list[Any]] = {"images": [RECORD], "annotations": [PLACED], "categories": [CATEGORY]}
    if many != "none":
        parts[many] = parts[many] * (3 * PEEK_BYTES // len(json.dumps(parts[many])))
    names = [*parts][first:] + [*parts][:first]
    file = put(tmp_path, {"info": {"images": 1}} | {name: parts[name] for name in names}, encoding)
    assert is_coco(file)


def test_a_file_that_is_cut_off_is_still_coco(tmp_path: Path) -> None:
    assert is_coco(put(tmp_path, json.dumps({"images": [RECORD, RECORD]})[:-20]))


@pytest.mark.parametrize(
    "content",
    [
        {"train": {"file": "x", "images": 3, "findings": [], "class_counts": {"annotations": 1}}},
        {"images": 3, "categories": 2},
        {"shapes": [{"label": "images"}], "imagePath": "1.png"},
        {"images": ["1.png", "2.png"]},
        {"a": {"images": [RECORD], "annotations": [PLACED], "categories": [CATEGORY]}},
        {"text": '"images": [{"file_name": 1}], "annotations": ['},
        [{"images": [RECORD], "categories": []}],
        {},
        "",
        "[" * 1000,
        '"images": [',
        "\0\0\0",
    ],
)
def test_other_files(tmp_path: Path, content: Any) -> None:
    assert not is_coco(put(tmp_path, content))


def test_what_is_no_file(tmp_path: Path) -> None:
    assert not is_coco(tmp_path)
    assert not is_coco(tmp_path / "none")


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"file_name": "a/1.jpg"}, "a/1.jpg"),
        ({"file_name": "a\\1.jpg"}, "a\\1.jpg"),
        ({"coco_url": "http://host/train2017/1.jpg"}, "train2017/1.jpg"),
        ({"other": 1}, None),
    ],
)
def test_the_name_of_an_image(tmp_path: Path, record: dict[str, Any], name: str | None) -> None:
    assert image_names(put(tmp_path, {"images": [record] * 9}), 3) == ([] if name is None else [name] * 3)
