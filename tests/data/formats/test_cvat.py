"""CVAT's own particulars."""

from pathlib import Path

import numpy as np
import pytest
from drawn import Picture, pictures, write_cvat

from piip.data.detection.coco import read_split
from piip.data.detection.outlines import rasterise
from piip.data.detection.splits import find_splits
from piip.data.report import DataError
from piip.data.run_lengths import run_lengths


def with_shapes(root: Path, shapes: str, boxes: tuple = ()):
    write_cvat([Picture("a.png", boxes=list(boxes))], root / "annotations.xml", root / "images", more=shapes)
    data, report = read_split(find_splits(root)["train"])
    return report, [(data.classes[obj.label], obj) for obj in data.images[0].objects]


def test_subsets_are_the_splits_and_labels_keep_their_order(tmp_path: Path) -> None:
    file, images = tmp_path / "annotations.xml", tmp_path / "images"
    write_cvat(pictures(), file, images, subset="Train")
    train = file.read_text()
    write_cvat(pictures("other"), file, images, subset="Validation")
    records = file.read_text().split("</meta>")[1]
    file.write_text(train.replace("</annotations>", "") + records)
    for path in (tmp_path, file):
        splits = find_splits(path)
        assert list(splits) == ["train", "val"]
        val, _ = read_split(splits["val"])
        assert [image.path.name for image in val.images] == ["other a.jpg", "other_b.jpg", "other_c.jpg"]
        assert val.classes == ("traffic light", "cat")


def test_masks_are_the_pixels_that_were_painted(tmp_path: Path) -> None:
    part = np.random.default_rng(0).random((7, 5)) < 0.6
    rle = ", ".join(map(str, run_lengths(part.T)))  # along the rows
    mask = f'<mask label="cat" rle="{rle}" left="10" top="4" width="5" height="7" z_order="0"></mask>'
    _, ((name, obj),) = with_shapes(tmp_path, mask)
    painted = np.zeros((40, 60), bool)
    painted[4:11, 10:15] = part
    assert name == "cat"
    assert np.array_equal(rasterise(obj.segmentation, (40, 60)), painted)
    assert obj.area == part.sum()
    assert obj.box == (10, 4, 15, 11)


@pytest.mark.parametrize("rle", ["1,2", "9999999999999999999999", "-3,38", "a"])
def test_masks_that_do_not_add_up_are_counted(rle: str, tmp_path: Path) -> None:
    mask = f'<mask label="cat" rle="{rle}" left="10" top="4" width="5" height="7"></mask>'
    report, found = with_shapes(tmp_path, mask, boxes=(("cat", (1, 1, 9, 9)),))
    assert len(found) == 1
    assert sum(finding.count for finding in report.findings if finding.severity == "left out") == 1


def test_turned_boxes_ellipses_and_groups(tmp_path: Path) -> None:
    corner = "1.0,1.0;9.0,1.0;1.0,9.0"
    shapes = (
        '<box label="box" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.00"></box>'
        '<ellipse label="disc" cx="30.0" cy="20.0" rx="12.0" ry="6.0"></ellipse>'
        f'<polygon label="two parts" points="{corner}" group_id="3"></polygon>'
        '<polygon label="two parts" points="21,1;29,1;21,9" group_id="3"></polygon>'
    )
    report, found = with_shapes(tmp_path, shapes)
    box, disc, parts = (obj for _, obj in found)
    assert np.allclose(box.box, (15, 5, 25, 25))
    assert report.find("rotated box (the upright one around it is used)").count == 1
    assert np.allclose(disc.box, (18, 14, 42, 26))
    assert disc.area == pytest.approx(np.pi * 12 * 6, rel=0.01)
    assert parts.segmentation == [[1, 1, 9, 1, 1, 9], [21, 1, 29, 1, 21, 9]]
    assert (parts.area, parts.box) == (64, (1, 1, 29, 9))


def test_what_is_no_object_is_counted(tmp_path: Path) -> None:
    shapes = ('<points label="nose" points="3,4"></points><polyline label="lane" points="1,2;3,4"></polyline>'
              '<tag label="sunny"></tag><skeleton label="person"><points label="hand" points="1,1"></points></skeleton>'
              '<polygon label="cat" points="1,2;3"></polygon>')  # fmt: skip
    report, found = with_shapes(tmp_path, shapes, boxes=(("cat", (1, 1, 9, 9)),))
    assert len(found) == 1
    assert report.find("shape that is no box, polygon, ellipse or mask").count == 3
    assert report.find("tag of a whole image (not used)").examples == ["a.png: sunny"]
    assert report.find("polygon with something else than numbers").count == 1


def test_a_video_says_what_to_export_instead(tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text('<annotations><track id="0" label="car"></track></annotations>')
    with pytest.raises(DataError, match='export "CVAT for images'):
        read_split(find_splits(tmp_path)["train"])
