"""Hugging Face's image folders, with objects or with classes."""

import json
from pathlib import Path

from class_folders import write_image
from drawn import paint, pictures

import piip
from piip.data.detection.coco import read_split
from piip.data.detection.splits import find_splits
from piip.data.kinds import kind_of_data

CARD = """---
license: mit
dataset_info:
  features:
  - name: objects
    sequence:
    - name: category
      dtype:
        class_label:
          names:
            '0': 'no'
            '1': traffic light
---
# A card
"""


def rows_of(split: str = "train", numbers: bool = False) -> list[dict]:
    rows = []
    for picture in pictures(split):
        boxes = [[x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2) in picture.boxes]
        names = [int(name != "cat") if numbers else name for name, _ in picture.boxes]
        rows.append({"file_name": picture.name, "width": picture.width, "height": picture.height,
                     "objects": {"id": list(range(len(boxes))), "bbox": boxes, "category": names}})  # fmt: skip
    return rows


def written(folder: Path, rows: list[dict], split: str = "train") -> None:
    for picture in pictures(split):
        paint(picture, folder)
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8-sig")


def test_objects_are_read_as_they_were_drawn(tmp_path: Path) -> None:
    written(tmp_path / "train", rows_of())
    written(tmp_path / "validation", rows_of("val"), "val")
    assert kind_of_data(tmp_path) == "detection"
    splits = find_splits(tmp_path)
    assert list(splits) == ["train", "val"]
    data, report = read_split(splits["train"])
    assert report.format == "Hugging Face image folder"
    found = {image.path.name: [(data.classes[obj.label], obj.box) for obj in image.objects] for image in data.images}
    assert found == {picture.name: picture.boxes for picture in pictures()}


def test_objects_in_columns_of_the_row_itself(tmp_path: Path) -> None:
    rows = [row | row["objects"] for row in rows_of()]
    for row in rows:
        del row["objects"]
    written(tmp_path / "train", rows)
    data, _ = read_split(find_splits(tmp_path)["train"])
    found = {image.path.name: [(data.classes[obj.label], obj.box) for obj in image.objects] for image in data.images}
    assert found == {picture.name: picture.boxes for picture in pictures()}


def test_names_of_the_card_and_lists_of_objects(tmp_path: Path) -> None:
    rows = rows_of(numbers=True)
    objects = rows[1]["objects"]
    rows[1]["objects"] = [{"bbox": box, "category": 0} for box in objects["bbox"]]
    rows += [{"file_name": ""}, {"file_name": "gone.jpg", "objects": {"bbox": [[1, 2, "x"]], "category": []}}]
    written(tmp_path, rows)
    (tmp_path / "README.md").write_text(CARD)
    data, report = read_split(find_splits(tmp_path)["train"])
    assert data.classes == ("no", "traffic light")
    assert [[data.classes[obj.label] for obj in image.objects] for image in data.images] == [
        ["no", "traffic light"], ["no"], []]  # fmt: skip
    assert report.find("row without a file name").count == report.find("object without a class").count == 1
    assert "gone.jpg" in report.find("image file that is missing or cannot be read").examples[0]


def test_polygons_count_in_the_place_of_boxes(tmp_path: Path) -> None:
    rows = rows_of()[:1]
    square, corner = [1.0, 1, 9, 1, 9, 9, 1, 9], [20.0, 1, 29, 1, 20, 9]
    objects = {"bbox": [[1, 1, 8, 8], [1, 2, 3, 4]], "category": ["cat", "dog"], "segmentation": [[square, corner], []]}
    written(tmp_path, [rows[0] | {"objects": objects}])
    data, report = read_split(find_splits(tmp_path)["train"])
    (cat, dog) = data.images[0].objects
    assert cat.segmentation == [square, corner]
    assert cat.box == (1, 1, 29, 9)
    assert dog.box == (1, 2, 4, 6)
    points = [[[x, y] for x, y in zip(square[::2], square[1::2], strict=True)]]
    rows = [rows[0] | {"objects": [{"category": "cat", "polygons": points}, {"category": "x", "polygons": ["a"]}]}]
    written(tmp_path, rows)
    data, report = read_split(find_splits(tmp_path)["train"])
    assert [obj.segmentation for obj in data.images[0].objects] == [[square]]
    assert report.find("polygon with something else than numbers").count == 1


def test_one_list_for_the_folders_of_all_splits(tmp_path: Path) -> None:
    rows = []
    for split in ("train", "test"):
        for picture in pictures(split):
            paint(picture, tmp_path / split)
        rows += [row | {"file_name": f"{split}/{row['file_name']}"} for row in rows_of(split)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = find_splits(tmp_path)
    assert list(splits) == ["train", "test"]
    assert {image.path.parent.name for image in read_split(splits["test"])[0].images} == {"test"}


def test_classes_in_json_lines_and_in_tables(tmp_path: Path) -> None:
    for split, suffix in (("train", "jsonl"), ("test", "csv")):
        for name in ("a", "b", "c"):
            write_image(tmp_path / split / f"{name}.png", ord(name) + len(split))
        rows = [("a.png", 0, "x"), ("b.png", 1, "y"), ("c.png", 0, "z")]
        text = "\n".join(json.dumps({"file_name": n, "label": c, "text": t, "more": {"k": 1}}) for n, c, t in rows)
        table = "file_name,label\n" + "\n".join(f"{n},{('no', 'traffic light')[c]}" for n, c, _ in rows)
        (tmp_path / split / f"metadata.{suffix}").write_text(text if suffix == "jsonl" else table)
    (tmp_path / "README.md").write_text(CARD)
    assert kind_of_data(tmp_path) == "classification"
    for split in ("train", "test"):
        data = piip.open_data(tmp_path, split)
        assert data.classes == ("no", "traffic light")
        assert [label for _, label in data.images] == [0, 1, 0]


def test_metadata_without_classes_changes_nothing_for_class_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / "train" / name / "1.png", ord(name))
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "a/1.png", "caption": "x"}\n')
    assert piip.open_data(tmp_path, "train").classes == ("a", "b")


def test_a_broken_line_names_the_file(tmp_path: Path) -> None:
    written(tmp_path, rows_of())
    with (tmp_path / "metadata.jsonl").open("a") as stream:
        stream.write('{"file_name": \n')
    report = piip.check_data(tmp_path)["train"]
    assert "metadata.jsonl: line 4 is not readable as JSON" in report.find("cannot be used").examples[0]
