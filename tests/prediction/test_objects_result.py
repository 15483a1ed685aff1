"""A result can be counted, indexed, drawn, saved and turned into other formats without losing anything."""

import builtins
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from piip.data.run_lengths import encode_mask, run_lengths
from piip.prediction.objects import Result


@pytest.fixture
def result() -> Result:
    masks = torch.zeros(3, 40, 60, dtype=torch.bool)
    masks[0, 5:15, 10:30] = True
    masks[1, :2, :3] = True
    boxes = torch.tensor([[10.0, 5.0, 30.0, 15.0], [0.0, 0.0, 3.0, 2.0], [50.123456, 30.0, 60.0, 40.0]])
    image = np.full((40, 60, 3), 128, dtype=np.uint8)
    scores, labels = torch.tensor([0.9, 0.75, 0.3]), torch.tensor([1, 0, 1])
    return Result(boxes, scores, labels, ("cat", "dog"), image, masks, Path("photos/a.jpg"))


def without_module(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Import of `name` fails as if it were not installed."""
    real = builtins.__import__

    def refuse(module, *args, **kwargs):
        if module.split(".")[0] == name:
            raise ImportError(name)
        return real(module, *args, **kwargs)

    for loaded in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(builtins, "__import__", refuse)


def test_length_names_and_size(result):
    assert len(result) == 3
    assert result.class_names == ["dog", "cat", "dog"]
    assert result.orig_size == (40, 60)
    assert repr(result) == "Result(2 dog, 1 cat in photos/a.jpg, 60x40 pixels)"


def test_an_integer_gives_one_object(result):
    one = result[1]
    assert isinstance(one, Result)
    assert len(one) == 1
    assert one.boxes.tolist() == [[0.0, 0.0, 3.0, 2.0]]
    assert one.masks.shape == (1, 40, 60)
    assert one.path == result.path
    assert result[-1].scores.tolist() == pytest.approx([0.3])


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_beyond_the_objects_is_refused(result, index):
    with pytest.raises(IndexError, match=f"index {index} is out of bounds .* size 3"):
        result[index]


@pytest.mark.parametrize(
    "index",
    [slice(0, 2), [0, 1], [True, True, False], torch.tensor([True, True, False]), np.array([0, 1])],
)
def test_slices_lists_and_flags_give_some_objects(result, index):
    some = result[index]
    assert some.labels.tolist() == [1, 0]
    assert len(some.masks) == len(some.scores) == len(some.boxes) == 2


def test_backwards_and_numpy_integers(result):
    assert result[::-1].scores.tolist() == result.scores.tolist()[::-1]
    assert result[np.int64(1)].boxes.shape == (1, 4)
    assert result[torch.tensor(1)].boxes.shape == (1, 4)


def test_empty_selection(result):
    none = result[[]]
    assert len(none) == 0
    assert none.masks.shape == (0, 40, 60)
    assert none.to_dict()["objects"] == []
    assert repr(none).startswith("Result(nothing in")
    assert np.array_equal(none.plot(), none.image)


def test_iteration_visits_each_object_in_order(result):
    assert [len(one) for one in result] == [1, 1, 1]
    assert [one.class_names[0] for one in result] == ["dog", "cat", "dog"]


def test_plot_draws_on_a_copy(result):
    drawn = result.plot()
    assert drawn.shape == (40, 60, 3)
    assert drawn.dtype == np.uint8
    assert (drawn != result.image).any()
    assert (result.image == 128).all()


@pytest.mark.parametrize("name", ["out.png", "new/folder/out.jpg", "out.WEBP"])
def test_save_enlarges_a_small_image_by_whole_pixels_so_that_it_can_be_read(result, tmp_path, name):
    path = result.save(tmp_path / name)
    with Image.open(path) as image:
        assert image.size == (11 * 60, 11 * 40)


@pytest.mark.parametrize("name", ["out.txt", "out"])
def test_save_refuses_what_is_no_image_format(result, tmp_path, name):
    with pytest.raises(ValueError, match=r"use \.jpg, \.png or \.webp"):
        result.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_json_holds_everything(result):
    content = json.loads(result.to_json())
    assert content["path"] == str(Path("photos/a.jpg"))
    assert (content["width"], content["height"]) == (60, 40)
    first, second, third = content["objects"]
    assert (first["label"], first["name"], first["score"]) == (1, "dog", 0.9)
    assert third["box"] == [50.12, 30.0, 60.0, 40.0]
    assert second["segmentation"]["size"] == [40, 60]
    assert second["segmentation"]["counts"] == run_lengths(result.masks[1].numpy()).tolist()


def test_json_without_masks_and_path(result):
    plain = Result(result.boxes, result.scores, result.labels, result.names, result.image)
    content = plain.to_dict()
    assert content["path"] is None
    assert all("segmentation" not in entry for entry in content["objects"])


def test_coco_entries_use_the_given_ids(result):
    entries = result.to_coco(image_id=77, category_ids=(5, 90))
    assert [entry["category_id"] for entry in entries] == [90, 5, 90]
    assert {entry["image_id"] for entry in entries} == {77}
    assert entries[0]["bbox"] == pytest.approx([10.0, 5.0, 20.0, 10.0])
    assert entries[0]["segmentation"] == encode_mask(result.masks[0].numpy())
    json.dumps(entries)


def test_supervision_gets_the_same_objects(result, monkeypatch):
    stand_in = ModuleType("supervision")
    stand_in.Detections = SimpleNamespace
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    detections = result.to_supervision()
    assert detections.xyxy.shape == (3, 4)
    assert detections.mask.dtype == bool
    assert detections.class_id.tolist() == [1, 0, 1]
    assert detections.confidence == pytest.approx([0.9, 0.75, 0.3])
    assert detections.data["class_name"].tolist() == ["dog", "cat", "dog"]


def test_a_missing_extra_is_named(result, monkeypatch):
    without_module(monkeypatch, "supervision")
    with pytest.raises(ImportError, match=r'pip install "piip\[vis\]"'):
        result.to_supervision()


def test_files_of_masks_need_no_extra(result, monkeypatch):
    without_module(monkeypatch, "faster_coco_eval")
    assert len(result.to_coco(1, (1, 2))) == 3
    assert "segmentation" in result.to_json()
