"""LabelMe's own particulars."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import Picture, labelme_shape, paint, png_base64, save_labelme

from piip.data.detection.coco import read_split
from piip.data.detection.outlines import rasterise
from piip.data.detection.splits import find_splits


def with_shapes(root: Path, *shapes: dict):
    picture = Picture("a.png")
    paint(picture, root)
    save_labelme(root / "a.json", picture, list(shapes))
    data, report = read_split(find_splits(root)["train"])
    return report, data.images[0].objects


@pytest.mark.parametrize("value", [1, 255])
def test_masks_are_the_pixels_that_were_painted(value: int, tmp_path: Path) -> None:
    part = np.random.default_rng(0).random((7, 5)) < 0.6
    shape = labelme_shape("cat", [(10, 4), (14, 10)], "mask", mask=png_base64(part.astype(np.uint8) * value))
    _, (obj,) = with_shapes(tmp_path, shape)
    painted = np.zeros((40, 60), bool)
    painted[4:11, 10:15] = part
    assert np.array_equal(rasterise(obj.segmentation, (40, 60)), painted)


def test_circles_groups_and_boxes_drawn_from_any_corner(tmp_path: Path) -> None:
    report, (box, disc, parts) = with_shapes(
        tmp_path,
        labelme_shape("box", [(30, 25), (10, 5)], "rectangle"),
        labelme_shape("disc", [(30, 20), (36, 28)], "circle"),
        labelme_shape("parts", [(1, 1), (9, 1), (1, 9)], group_id=4),
        labelme_shape("parts", [(21, 1), (29, 1), (21, 9)], group_id=4),
    )
    assert box.box == (10, 5, 30, 25)
    assert np.allclose(disc.box, (20, 10, 40, 30))
    assert disc.area == pytest.approx(np.pi * 100, rel=0.01)
    assert parts.segmentation == [[1, 1, 9, 1, 1, 9], [21, 1, 29, 1, 21, 9]]
    assert report.find("object without a usable outline (its box is taken)").count == 1


def test_what_is_no_object_is_counted(tmp_path: Path) -> None:
    report, found = with_shapes(
        tmp_path,
        labelme_shape("cat", [(1, 1), (9, 1), (1, 9)]),
        labelme_shape("nose", [(1, 1)], "point"),
        labelme_shape("lane", [(1, 1), (5, 5)], "line"),
        labelme_shape("cat", [(1, 1), ("x", 5), (5, 5)]),
        labelme_shape("cat", [(1, 1), (5, 5)]),
        labelme_shape("cat", [(1, 1), (5, 5)], "mask", mask="no base64!"),
        labelme_shape("", [(1, 1), (9, 1), (1, 9)]),
    )
    assert len(found) == 1
    counts = {finding.kind: finding.count for finding in report.findings if finding.severity == "left out"}
    assert counts == {
        "shape that is no polygon, rectangle, circle or mask": 2,
        "shape with something else than points": 1,
        "polygon with fewer than three points": 1,
        "mask that cannot be decoded": 1,
        "object without a class": 1,
    }


def test_files_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"epochs": 3}))
    (tmp_path / "broken.json").write_text('{"shapes": [')
    report, found = with_shapes(tmp_path, labelme_shape("cat", [(1, 1), (9, 1), (1, 9)]))
    assert len(found) == 1
    assert report.find("file that is no LabelMe annotation").examples == ["settings.json"]
    assert "broken.json" in report.find("annotation file that cannot be read").examples[0]
