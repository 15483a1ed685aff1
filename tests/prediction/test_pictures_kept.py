"""Results keep where their image is, not its pixels; large photos are decoded no larger than the network needs."""

import copy
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.prediction.test_predictor import StandIn, noise, png

from piip.config import Preprocess
from piip.data import decode
from piip.data.classification.transforms import ClassTestTransform
from piip.data.detection.transforms import TestTransform
from piip.data.image_files import ImageError
from piip.prediction.predictor import Predictor
from piip.prediction.preparing import input_transform
from piip.prediction.sources import Opened, opened


@pytest.fixture
def model() -> StandIn:
    return StandIn()


@pytest.fixture
def predictor(model: StandIn) -> Predictor:
    return Predictor(model, device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_results_of_files_keep_no_pixels_and_read_them_when_asked(predictor, tmp_path, workers) -> None:
    files = [png(tmp_path / name, noise(seed=seed)) for seed, name in enumerate(("a.png", "b.png"))]
    results = predictor.predict(files, workers=workers).results
    for seed, result in enumerate(results):
        assert result.picture.pixels is None
        assert result.orig_size == (30, 40)
        assert np.array_equal(result.image, noise(seed=seed))
        assert result.picture.pixels is None
        assert np.array_equal(pickle.loads(pickle.dumps(copy.deepcopy(result))).image, noise(seed=seed))


def test_the_newest_result_of_a_stream_has_its_pixels_at_hand(predictor, tmp_path) -> None:
    files = [png(tmp_path / name, noise(seed=seed)) for seed, name in enumerate(("a.png", "b.png"))]
    stream = predictor.stream(files)
    first = next(stream)
    os.remove(files[0])
    assert np.array_equal(first.plot().shape, (30, 40, 3))
    next(stream)
    with pytest.raises(ImageError, match=r"a\.png: the file is gone since"):
        first.plot()


@pytest.mark.parametrize("source", [lambda path: path.read_bytes(), lambda path: path.open("rb")])
def test_the_content_of_a_file_is_kept_as_it_was_given(predictor, tmp_path, source) -> None:
    file = png(tmp_path / "a.png", noise())
    (result,) = predictor.predict(source(file)).results
    file.write_bytes(b"")
    assert result.picture.pixels is None
    assert np.array_equal(result.image, noise())


def test_boxes_are_never_drawn_on_another_picture_of_the_name(predictor, tmp_path) -> None:
    file = png(tmp_path / "frame.png", noise(seed=0))
    (result,) = predictor.predict(file).results
    png(file, noise(seed=1))
    os.utime(file, ns=(1, 1))
    with pytest.raises(ImageError, match=r"frame\.png: this file has changed since this result was made"):
        result.save(tmp_path / "drawn.png")


def test_a_name_from_the_working_folder_is_found_from_another_one(predictor, tmp_path, monkeypatch) -> None:
    png(tmp_path / "a.png", noise())
    monkeypatch.chdir(tmp_path)
    (result,) = predictor.predict("a.png").results
    monkeypatch.chdir("/")
    assert result.path == Path("a.png")
    assert np.array_equal(result.image, noise())


def large_photo(path: Path) -> np.ndarray:
    pixels = np.kron(noise(50, 75), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(pixels).save(path, quality=95)
    return pixels


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_large_photo_is_read_as_an_evaluation_reads_it(predictor, model, tmp_path, monkeypatch, name) -> None:
    monkeypatch.setattr(decode, "LARGE", 100_000)
    large_photo(tmp_path / name)
    whole = decode.decode_image(tmp_path / name)
    (result,) = predictor.predict(tmp_path / name).results
    transform = TestTransform(model.config.preprocess)
    pixels, size = decode.decode_for(tmp_path / name, transform.needed)
    assert (pixels.shape, size) == ((100, 150, 3), (400, 600))
    expected = transform.image(torch.from_numpy(pixels).permute(2, 0, 1), size)
    assert torch.equal(model.batches[0][0, :, : expected.shape[1], : expected.shape[2]], expected)
    assert result.orig_size == (400, 600)
    assert result.boxes[0].tolist() == [0, 0, 600, 400]
    assert np.array_equal(result.image, whole)
    (given,) = predictor.predict(whole).results
    assert given.orig_size == (400, 600)
    assert not torch.equal(model.batches[1], model.batches[0]), "an array is seen as it is"


def test_native_size_and_tiles_see_all_pixels_of_a_large_photo(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(decode, "LARGE", 100_000)
    large_photo(tmp_path / "a.png")
    whole = opened(tmp_path / "a.png")
    assert isinstance(whole, Opened)
    assert whole.pixels.shape == (400, 600, 3)
    preprocess = Preprocess(long_side=64, short_side=64, resize_in_tests=False)
    assert input_transform(StandIn().config).needed((400, 600)) == (43, 64)  # type: ignore[arg-type]
    assert TestTransform(preprocess).needed((400, 600)) == (400, 600)


def test_a_classifier_sees_what_its_evaluation_sees() -> None:
    described = StandIn().config
    described.task = "classification"
    transform = input_transform(described)  # type: ignore[arg-type]
    image = torch.from_numpy(noise(90, 70)).permute(2, 0, 1)
    assert torch.equal(transform(image, (720, 560)), ClassTestTransform(described.preprocess)(image))
    assert transform.needed((720, 560)) == ClassTestTransform(described.preprocess).needed((720, 560))
