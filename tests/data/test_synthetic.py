"""The drawn data set: valid, deterministic, and annotated where the shapes are."""

import itertools
import json

import numpy as np
import pytest

from piip.data.decode import decode_image
from piip.data.detection.check import check
from piip.data.detection.coco import read_coco
from piip.data.detection.outlines import outline_bounds, rasterise
from piip.data.detection.splits import find_splits
from piip.data.synthetic import CLASSES, DESCRIPTION, make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"), train=30, val=4, seed=3, size=(96, 128))


def test_is_a_clean_data_set_with_all_classes(scenes):
    reports = check(scenes)
    assert (reports["train"].images, reports["val"].images) == (30, 4)
    for report in reports.values():
        assert {f.severity for f in report.findings} <= {"note"}
        assert report.masks
    assert list(reports["train"].class_counts) == list(CLASSES)
    assert min(reports["train"].class_counts.values()) >= 5


def test_sizes_range_from_small_to_large(scenes):
    data, _ = read_coco(*find_splits(scenes)["train"])
    sides = [max(o.box[2] - o.box[0], o.box[3] - o.box[1]) / 96 for image in data.images for o in image.objects]
    assert min(sides) < 0.14
    assert max(sides) > 0.4
    assert all(image.size == (96, 128) for image in data.images)


def around(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask and those up to three away."""
    rows, columns = np.nonzero(mask)
    grown = np.zeros_like(mask)
    for dy, dx in itertools.product((-3, 0, 3), repeat=2):
        grown[np.clip(rows + dy, 0, mask.shape[0] - 1), np.clip(columns + dx, 0, mask.shape[1] - 1)] = True
    return grown


def test_boxes_outlines_and_pixels_agree(scenes):
    data, _ = read_coco(*find_splits(scenes)["train"])
    partly_hidden = 0
    for image in data.images:
        pixels = decode_image(image.path).astype(float)
        masks = [rasterise(obj.segmentation, image.size).astype(bool) for obj in image.objects]
        anything = np.any(masks, axis=0)
        assert (np.sum(masks, axis=0) > 1).mean() < 0.02, "annotations are of what is visible"
        for obj, mask in zip(image.objects, masks, strict=True):
            assert np.abs(np.array(outline_bounds(obj.segmentation, image.size)) - obj.box).max() <= 0.02
            assert mask.sum() == pytest.approx(obj.area, rel=0.25, abs=6)
            partly_hidden += isinstance(obj.segmentation, dict)
            ground = around(mask) & ~anything
            if ground.sum() > 10:
                distance = np.linalg.norm(np.median(pixels[mask], axis=0) - np.median(pixels[ground], axis=0))
                assert distance > 30
    assert partly_hidden > 3


def test_the_same_arguments_write_the_same(tmp_path):
    first = make_scenes(tmp_path / "a", train=3, val=1, seed=1, size=(64, 64))
    again = make_scenes(tmp_path / "b", train=2, val=1, seed=1, size=(64, 64))
    other = make_scenes(tmp_path / "c", train=2, val=1, seed=2, size=(64, 64))
    for name in ("train/00000.png", "train/00001.png", "val/00000.png"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
        assert (first / name).read_bytes() != (other / name).read_bytes()
    assert (first / "train/00000.png").read_bytes() != (first / "val/00000.png").read_bytes()
    three, two = (
        json.loads((folder / "annotations" / "instances_train.json").read_text())["annotations"]
        for folder in (first, again)
    )
    assert three[: len(two)] == two


def test_repeats_itself_but_does_not_overwrite_other_annotations(tmp_path):
    make_scenes(tmp_path, train=1, val=1, size=(32, 32))
    make_scenes(tmp_path, train=2, val=1, size=(32, 32))
    file = tmp_path / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace(DESCRIPTION, "years of work"))
    with pytest.raises(FileExistsError, match=r"instances_train\.json"):
        make_scenes(tmp_path, train=3, val=1, size=(32, 32))
    assert "years of work" in file.read_text()
    assert not (tmp_path / "train" / "00002.png").exists()


@pytest.mark.parametrize("arguments", [{"size": (16, 64)}, {"train": -1}, {"val": -1}])
def test_nonsense_is_refused_before_anything_is_written(tmp_path, arguments):
    with pytest.raises(ValueError, match=r"at least 32|negative"):
        make_scenes(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()
