"""Results as other programs read them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests import tiny
from tests.prediction.test_prediction_files import HEADS

import piip
from piip.prediction.bulk import Keeping, write_all
from piip.prediction.listing import paths_of
from piip.prediction.options import Options


def test_the_formats_say_what_the_lines_say(tmp_path: Path) -> None:
    for number, folder in enumerate("abb"):
        (tmp_path / folder).mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / f"{number % 2}.png")
    (tmp_path / "b" / "0.png").rename(tmp_path / "b" / "1-2.png")
    Image.open(tmp_path / "b" / "1.png").save(tmp_path / "a" / "1.png")
    model = piip.PIIP(tiny.model().model_copy(update={"category_ids": (7, 9, 3)}), device="cpu")
    out = tmp_path / "out"
    keeping = Keeping(formats=("csv", "yolo", "coco", "yolo-polygons", "coco-polygons"))
    written = write_all(model.predictor(), paths_of(tmp_path, recursive=True), out, Options(conf=0.0), keeping)
    rows = json.loads((out / "predictions.json").read_text())
    objects = [(row, found) for row in rows for found in row["objects"]]
    assert len(objects) == written.objects > 0

    with (out / "objects.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(line["path"], line["name"], float(line["x2"])) for line in table] == [
        (row["path"], found["name"], found["box"][2]) for row, found in objects
    ]

    labels = [out / "yolo" / "labels" / f"{Path(row['picture']).stem}.txt" for row in rows]
    lines = [
        (row, line.split()) for row, path in zip(rows, labels, strict=True) for line in path.read_text().splitlines()
    ]
    for (row, found), (_, (label, x, y, width, height)) in zip(objects, lines, strict=True):
        x1, y1, x2, y2 = found["box"]
        assert int(label) == found["label"]
        assert float(x) * row["width"] == pytest.approx((x1 + x2) / 2, abs=1e-3)
        assert float(width) * row["width"] == pytest.approx(x2 - x1, abs=1e-3)
        assert float(y) * row["height"] == pytest.approx((y1 + y2) / 2, abs=1e-3)
        assert float(height) * row["height"] == pytest.approx(y2 - y1, abs=1e-3)
    assert (out / "yolo" / "data.yaml").read_text() == 'names:\n  0: "disc"\n  1: "square"\n  2: "star"\n'

    data = json.loads((out / "coco_dataset.json").read_text())
    assert [image["file_name"] for image in data["images"]] == [row["path"] for row in rows]
    assert {category["id"]: category["name"] for category in data["categories"]} == {7: "disc", 9: "square", 3: "star"}
    results = json.loads((out / "coco_results.json").read_text())
    for annotation, result in zip(data["annotations"], results, strict=True):
        assert (annotation["image_id"], annotation["category_id"]) == (result["image_id"], result["category_id"])
        assert annotation["bbox"] == pytest.approx(result["bbox"], abs=0.02)
        assert annotation["area"] == sum(annotation["segmentation"]["counts"][1::2])

    traced = json.loads((out / "coco_polygons.json").read_text())["annotations"]
    first = [line.split() for line in (out / "yolo_polygons" / "labels" / labels[0].name).read_text().splitlines()]
    for number, (annotation, usual) in enumerate(zip(traced, data["annotations"], strict=True)):
        (polygon,) = annotation["segmentation"]
        corners = np.array(polygon).reshape(-1, 2)
        assert len(corners) >= 4
        x, y, width, height = usual["bbox"]
        assert (corners >= np.floor((x, y))).all()
        assert (corners <= np.ceil((x + width, y + height))).all()
        if number < len(first):
            label, *points = first[number]
            assert int(label) == objects[number][1]["label"]
            sides = (rows[0]["width"], rows[0]["height"])
            assert np.array(points, dtype=float).reshape(-1, 2) * sides == pytest.approx(corners, abs=1e-3)


def test_formats_that_cannot_be_written(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "x.png")
    files, out = paths_of(tmp_path / "x.png"), tmp_path / "out"
    detector = piip.PIIP(tiny.model(), device="cpu").predictor()
    with pytest.raises(ValueError, match="format 'voc': use csv, yolo, coco"):
        write_all(detector, files, out, Options(), Keeping(formats=("voc",)))
    segmentor = piip.PIIP(tiny.model().model_copy(update={"head": HEADS["segmentation"]}), device="cpu").predictor()
    with pytest.raises(ValueError, match="only for detection; this model is for segmentation"):
        write_all(segmentor, files, out, Options(), Keeping(formats=("csv",)))
    out.mkdir()
    (out / "objects.csv").write_text("mine")
    with pytest.raises(ValueError, match="objects.csv is there already"):
        write_all(detector, files, out, Options(), Keeping(formats=("csv",)))
    assert (out / "objects.csv").read_text() == "mine"
