import dataclasses
import json
import sys
import tracemalloc
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from piip.config import Preprocess
from piip.pictures.colours import area_colour
from piip.pictures.label_map import draw_label_batch, draw_labels, shares, tinted
from piip.prediction.label_map import SegmentationResult
from piip.structures import IGNORED, Batch

NAMES = ("ground", "square", "disc")


def result(values=None, size=(40, 60)) -> SegmentationResult:
    labels = np.zeros(size, dtype=np.int32)
    labels[: size[0] // 2, : size[1] // 2] = 2
    scores = np.where(labels == 2, 0.9, 0.5).astype(np.float32)
    image = np.full((*size, 3), 120, dtype=np.uint8)
    return SegmentationResult(labels, scores, NAMES, image, values)


def test_shares_and_masks_by_name():
    one = result()
    assert one.shares == {"ground": 0.75, "disc": 0.25}
    assert one.mask("disc").sum() == 600
    assert one.mask("square").sum() == 0
    with pytest.raises(ValueError, match="squire.*ground, square, disc"):
        one.mask("squire")
    assert "ground 75%" in repr(one)


def test_supervision_gets_a_mask_and_a_box_per_class(monkeypatch):
    stand_in = ModuleType("supervision")
    stand_in.Detections = SimpleNamespace
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    found = result().to_supervision()
    assert found.class_id.tolist() == [0, 2]
    assert found.xyxy.tolist() == [[0, 0, 60, 40], [0, 0, 30, 20]]
    assert found.mask.sum(axis=(1, 2)).tolist() == [1800, 600]
    assert found.confidence == pytest.approx([0.5, 0.9])
    assert found.data["class_name"].tolist() == ["ground", "disc"]


def test_dictionary():
    content = json.loads(result(values=(7, 8, 9)).to_json())
    assert content["width"] == 60
    assert content["classes"] == [
        {"label": 0, "value": 7, "name": "ground", "share": 0.75, "score": 0.5},
        {"label": 2, "value": 9, "name": "disc", "share": 0.25, "score": 0.9},
    ]


@pytest.mark.parametrize(("values", "mode"), [(None, "P"), ((3, 200, 255), "P"), ((3, 200, 256), "I;16")])
def test_masks_keep_the_values_of_the_training_data(tmp_path, values, mode):
    one = result(values)
    path = one.save_mask(tmp_path / "new" / "mask.png")
    with Image.open(path) as saved:
        assert saved.mode == mode
        read = np.array(saved)
        if mode == "P":
            value = 2 if values is None else values[2]
            assert tuple(saved.getpalette()[3 * value : 3 * value + 3]) == area_colour(2)
    assert np.array_equal(read, np.array(values or range(3))[one.labels])


def test_the_data_s_own_colours_are_in_pictures_and_masks(tmp_path):
    one = dataclasses.replace(result(), colours=((10, 20, 30), None, (200, 100, 0)))
    with Image.open(one.save_mask(tmp_path / "mask.png")) as saved:
        assert saved.getpalette()[:9] == [10, 20, 30, *area_colour(1), 200, 100, 0]
    legend = one.plot()[:, one.image.shape[1] :]
    assert (legend == (200, 100, 0)).all(axis=2).sum() > 50


def test_masks_are_png_files_only(tmp_path):
    with pytest.raises(ValueError, match=r"\.png"):
        result().save_mask(tmp_path / "mask.jpg")
    with pytest.raises(ValueError, match="no image format"):
        result().save(tmp_path / "picture.xyz")


@pytest.mark.parametrize("size", [(40, 60), (1, 1), (7, 900), (1500, 1000)])
def test_pictures_have_the_image_and_a_legend_beside_it(size, tmp_path):
    one = result(size=size)
    picture = one.plot()
    assert picture.dtype == np.uint8
    assert picture.shape[0] >= size[0]
    assert picture.shape[1] > size[1]
    left = picture[: size[0], : size[1]]
    assert np.array_equal(left, tinted(one.image, one.labels))
    assert one.save(tmp_path / "picture.jpg").is_file()


def test_the_image_shines_through_and_classes_differ():
    one = result()
    left = draw_labels(one.image, one.labels, NAMES)[:40, :60].astype(int)
    assert np.abs(left[5, 5] - left[30, 50]).sum() > 60
    bright = tinted(np.full_like(one.image, 250), one.labels).astype(int)
    assert (bright[5, 5] > left[5, 5]).all()


def test_ignored_pixels_are_dark_and_in_no_share():
    labels = np.full((10, 10), IGNORED)
    assert shares(labels) == {}
    assert (tinted(np.full((10, 10, 3), 200, dtype=np.uint8), labels) < 100).all()


def test_training_batches_show_labels_of_padded_images():
    preprocess = Preprocess(long_side=64, short_side=64)
    labels = [torch.ones(64, 64, dtype=torch.int64), torch.full((32, 48), 2)]
    batch = Batch(torch.zeros(2, 3, 64, 64), [(64, 64), (32, 48)], [(64, 64)] * 2, labels, [0, 1])
    picture = draw_label_batch(batch, preprocess, NAMES)
    side = 640
    assert picture.shape[0] == side
    assert tuple(picture[200, 200]) != tuple(picture[200, side + 200])
    assert picture[600, side + 600].max() < picture[200, side + 200].max()


def test_large_label_maps_are_mixed_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (700, 900, 3), dtype=np.uint8), rng.integers(-1, 9, (700, 900))
    whole = tinted(image, labels)
    monkeypatch.setattr("piip.pictures.label_map.STRIP", 10_000)
    tracemalloc.start()
    try:
        strips = tinted(image, labels)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(whole, strips)
    assert most < 10 * labels.size
