"""`piip demo`: the weights that come with piip, what they know, and the whole of it on a few pictures."""

import json

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from piip.api import PIIP
from piip.data.fruit.scenes import CLASSES, scene
from piip.demo import run
from piip.demo.model import KNOWN, NEW, WEIGHTS, demo_model
from piip.weights.errors import WeightsError
from piip.weights.files import stored_precision


def test_weights_are_small_and_those_of_the_model_described():
    known, described = run.shipped().config, demo_model()
    for part in ("backbone", "head", "classes", "preprocess"):
        assert getattr(known, part) == getattr(described, part)
    assert (*KNOWN, NEW) == CLASSES
    assert stored_precision(WEIGHTS) == ("float16",)
    assert WEIGHTS.stat().st_size < 6e6


def test_weights_find_fruit_in_scenes_that_they_were_not_trained_on():
    pixels, objects = zip(*(scene(np.random.default_rng([2, 0, i]), (288, 384), KNOWN) for i in range(3)), strict=True)
    right = total = 0
    for found, there in zip(PIIP(WEIGHTS, "cpu").predict(list(pixels), conf=0.5), objects, strict=True):
        boxes = torch.tensor([obj["bbox"] for obj in there], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([obj["category_id"] - 1 for obj in there])
        hits = (box_iou(boxes, torch.as_tensor(found.boxes)) > 0.5) & (labels[:, None] == torch.as_tensor(found.labels))
        right, total = right + int(hits.any(dim=1).sum()), total + len(there)
    assert right / total > 0.7


def test_says_what_to_do_where_weights_are_missing_or_damaged(tmp_path):
    damaged = tmp_path / "fruit.safetensors"
    damaged.write_bytes(WEIGHTS.read_bytes()[:100_000])
    for file in (tmp_path / "missing.safetensors", damaged):
        with pytest.raises(WeightsError, match=r"fruit|missing") as error:
            run.shipped(file)
        assert "install piip again, or make it" in str(error.value)


def test_teaches_one_fruit_more_and_says_what_it_began_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "TRAIN_IMAGES", 4)
    monkeypatch.setattr(run, "VAL_IMAGES", 4)
    run.run_demo(tmp_path, epochs=1)
    folder = tmp_path / "detection" / "demo"
    assert PIIP(folder).config.classes == CLASSES
    assert len(list((folder / "val").glob("*.jpg"))) == 4
    assert json.loads((folder / "val" / "metrics.json").read_text())
    out = capsys.readouterr().out
    assert "weights that come with piip" in " ".join(out.split())
