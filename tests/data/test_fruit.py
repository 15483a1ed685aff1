"""`piip.data.fruit`: pictures that look like something, with annotations that say what is visible."""

import json

import numpy as np
import pytest

from piip.data.detection.check import check
from piip.data.detection.coco import read_coco
from piip.data.fruit.drawing import FRUITS, drawn
from piip.data.fruit.scenes import CLASSES, DESCRIPTION, make_fruit, scene
from piip.data.run_lengths import run_lengths

SMALL = (120, 160)


@pytest.fixture(scope="module")
def fruit(tmp_path_factory):
    return make_fruit(tmp_path_factory.mktemp("data") / "fruit", train=3, val=2, size=SMALL)


def test_is_a_clean_data_set(fruit):
    reports = check(fruit)
    assert [(str(name), report.images, report.errors) for name, report in reports.items()] == [
        ("train", 3, 0), ("val", 2, 0)]  # fmt: skip
    data, _ = read_coco(fruit / "annotations" / "instances_train.json", fruit / "train")
    assert data.classes == CLASSES == tuple(FRUITS)
    assert all(image.size == SMALL and image.objects for image in data.images)


def test_boxes_are_those_of_the_visible_pixels_and_no_pixel_has_two_owners():
    pixels, objects = scene(np.random.default_rng([0, 0, 1]), SMALL)
    assert pixels.shape == (*SMALL, 3)
    owners = np.zeros(SMALL, dtype=int)
    for obj in objects:
        counts = obj["segmentation"]["counts"]
        mask = np.repeat(np.arange(len(counts)) % 2, counts).reshape(SMALL[::-1]).T.astype(bool)
        assert run_lengths(mask).tolist() == counts
        left, top, width, height = obj["bbox"]
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        assert (left, top, left + width, top + height) == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert obj["area"] == mask.sum() > 0
        owners += mask
    assert owners.max() == 1


@pytest.mark.parametrize("name", CLASSES)
def test_a_piece_lies_within_its_square_whatever_way_it_is_turned(name):
    for angle in (0.0, 2.0, 4.0):
        piece = drawn(name, 20.0, angle, np.random.default_rng(0))
        border = np.concatenate([piece.cover[0], piece.cover[-1], piece.cover[:, 0], piece.cover[:, -1]])
        assert border.max() == 0
        assert 0.2 * 400 < piece.cover.sum() < 3.6 * 400
        assert 0 <= piece.colour.min() <= piece.colour.max() <= 255


def test_has_no_other_kinds_than_those_asked_for(tmp_path):
    kinds = ("banana", "kiwi")
    folder = make_fruit(tmp_path / "two", train=3, val=1, size=SMALL, kinds=kinds)
    data, _ = read_coco(folder / "annotations" / "instances_train.json", folder / "train")
    assert data.classes == kinds
    _, objects = scene(np.random.default_rng([0, 0, 0]), SMALL, kinds)
    assert {obj["category_id"] for obj in objects} <= {1, 2}


def test_repeats_itself_and_does_not_overwrite_other_annotations(tmp_path):
    first = make_fruit(tmp_path / "a", train=1, val=1, size=SMALL)
    again = make_fruit(tmp_path / "b", train=2, val=1, size=SMALL)
    assert (first / "train" / "00000.jpg").read_bytes() == (again / "train" / "00000.jpg").read_bytes()
    file = first / "annotations" / "instances_train.json"
    assert json.loads(file.read_text())["info"]["description"] == DESCRIPTION
    file.write_text("{}")
    with pytest.raises(FileExistsError, match="other annotations"):
        make_fruit(first, train=1, val=1, size=SMALL)
