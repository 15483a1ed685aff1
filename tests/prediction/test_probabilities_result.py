"""What users get for one classified image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from piip import config
from piip.pictures.probabilities import draw_class_batch, draw_probabilities
from piip.prediction.probabilities import ClassificationResult
from piip.structures import Batch

NAMES = ("cat", "dog", "bird", "a class with a name that is far too long for any picture", "fish", "鳥")


@pytest.fixture
def result() -> ClassificationResult:
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    return ClassificationResult(torch.tensor([0.1, 0.5, 0.05, 0.2, 0.12, 0.03]), NAMES, image, Path("a.png"))


@pytest.mark.parametrize("size", [(3000, 3), (3, 3000), (1, 1)])
def test_pictures_of_the_narrowest_images(size):
    picture = draw_probabilities(np.zeros((*size, 3), dtype=np.uint8), [(0, "a class", 0.5), (1, "another", 0.25)])
    assert picture.shape[1] >= 256
    assert max(picture.shape) <= 4096 + 256


def test_names(result):
    assert result.top1 == "dog"
    assert result.top5 == ["dog", NAMES[3], "fish", "cat", "bird"]
    assert result.top(2) == [("dog", 0.5), (NAMES[3], pytest.approx(0.2))]
    assert len(result.top(99)) == 6
    assert result.orig_size == (32, 40)
    assert "dog 0.50" in repr(result)


def test_fewer_than_five_classes():
    result = ClassificationResult(torch.tensor([0.3, 0.7]), ("a", "b"), np.zeros((4, 4, 3), np.uint8))
    assert result.top5 == ["b", "a"]


def test_plain_values(result):
    content = json.loads(result.to_json())
    assert content["path"] == "a.png"
    assert (content["width"], content["height"]) == (40, 32)
    assert len(content["top"]) == 5
    assert content["top"][0] == {"label": 1, "name": "dog", "probability": 0.5}
    assert len(result.to_dict(count=2)["top"]) == 2


def test_pictures(result, tmp_path):
    picture = result.plot()
    assert picture.dtype == np.uint8
    scale = 256 // 32
    assert picture.shape[1] == 40 * scale
    assert picture.shape[0] > 32 * scale  # a panel below
    assert np.array_equal(picture[: 32 * scale : scale, ::scale], result.image)  # nothing is written on the image
    assert result.save(tmp_path / "made" / "a.jpg").is_file()
    width, height = Image.open(tmp_path / "made" / "a.jpg").size
    assert width == 640
    assert height > 512  # enlarged, and a panel below


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (600, 700)])
def test_captions_on_any_shape(size):
    picture = draw_probabilities(np.zeros((*size, 3), np.uint8), [(0, "cat", 0.9), (70, NAMES[3], 0.1)])
    assert picture.shape[0] > size[0]
    assert picture.shape[1] >= size[1]


def test_training_batches_show_the_shares():
    preprocess = config.Preprocess(long_side=16, short_side=16, pad_multiple=1)
    targets = [torch.tensor([0.65, 0.25, 0.05, 0.05]), torch.tensor([0.0, 0.0, 1.0, 0.0])]
    batch = Batch(torch.zeros(2, 3, 16, 16), [(16, 16)] * 2, [(16, 16)] * 2, targets, [0, 1])
    picture = draw_class_batch(batch, preprocess, NAMES[:4])
    assert picture.ndim == 3
    written = [(picture[:, i * 640 : (i + 1) * 640] == 0).all(axis=2).any(axis=1).sum() for i in range(2)]
    assert written[0] > written[1] > 0  # two lines, one line
