"""Predictions in tiles: those of the image itself where it is one tile, one result of all where it is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny

import piip
from piip import config
from piip.model import PIIPModel
from piip.prediction.objects import Result
from piip.prediction.predictor import Predictor


def detector(**head: Any) -> PIIPModel:
    torch.manual_seed(0)
    model = PIIPModel(tiny.model(2, **({"score_threshold": 0.0} | head))).eval()
    model.head.as_if_trained()
    return model


def segmentor() -> PIIPModel:
    torch.manual_seed(0)
    usual = tiny.model(2)
    return PIIPModel(usual.model_copy(update={"head": config.UperNet(channels=32, auxiliary_channels=None)})).eval()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_image_that_is_one_tile_gives_the_same_numbers() -> None:
    predictor, image = Predictor(detector(), "cpu"), noise(80, 110)
    whole, tiled = (predictor.predict(image, conf=0.1, **more).results[0] for more in ({}, {"tiles": 110}))
    assert isinstance(whole, Result)
    assert isinstance(tiled, Result)
    # Those that a whole image keeps of one place are kept, and those that overlap by half are one.
    assert len(whole) > 3
    assert torch.equal(tiled.boxes, whole.boxes)
    assert torch.equal(tiled.scores, whole.scores)
    assert torch.equal(tiled.labels, whole.labels)
    assert whole.run_lengths is not None
    assert tiled.run_lengths is not None
    assert all(map(np.array_equal, tiled.run_lengths.runs, whole.run_lengths.runs))


@pytest.mark.parametrize("batch", [1, 4])
def test_tiles_of_a_batch_are_those_one_by_one(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, image = Predictor(detector(masks=False), "cpu"), noise(100, 150)
    sizes: list[tuple[int, ...]] = []
    run = predictor._run
    monkeypatch.setattr(
        predictor, "_run", lambda batch, model: sizes.append(tuple(batch.images.shape)) or run(batch, model)
    )
    (result,) = predictor.predict(image, conf=0.0, tiles=64, overlap=0.2, batch_size=batch).results
    assert isinstance(result, Result)
    assert sum(size[0] for size in sizes) == 6
    assert max(size[0] for size in sizes) == batch
    assert len({size[1:] for size in sizes}) == 1
    assert result.boxes[:, 2].max() > 64
    assert (result.scores.diff() <= 0).all()
    assert len(predictor.predict(image, conf=0.0, tiles=64, detections=5).results[0]) == 5
    if batch == 4:
        (alone,) = predictor.predict(image, conf=0.0, tiles=64, overlap=0.2).results
        assert torch.allclose(alone.boxes, result.boxes, atol=1e-2)


def test_label_maps_in_tiles() -> None:
    predictor, image = Predictor(segmentor(), "cpu"), noise(100, 150)
    whole, one, tiled = (
        predictor.predict(image, **more).results[0] for more in ({}, {"tiles": 150}, {"tiles": 64, "overlap": 0.5})
    )
    assert np.array_equal(one.labels, whole.labels)
    assert np.array_equal(one.scores, whole.scores)
    assert tiled.labels.shape == (100, 150)
    assert (tiled.scores > 0).all()


def test_broken_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.fromarray(noise(70, 90)).save(tmp_path / "b.png")
    report = piip.PIIP(detector(), device="cpu").predict_report(tmp_path, tiles=64)
    assert [failure.path.name for failure in report.failures] == ["a.png"]
    assert [result.path.name for result in report.results] == ["b.png"]


def test_a_classifier_has_no_tiles() -> None:
    model = piip.PIIP("piip_nano_classifier", device="cpu")
    with pytest.raises(ValueError, match="tiles are for detection and segmentation"):
        model.predict(noise(40, 40), tiles=20)


def test_tiles_are_prepared_as_the_predictor_prepares_images() -> None:
    """An exported file, say, has images of one size, for which its predictor has a transform of its own."""
    predictor = Predictor(detector(masks=False), "cpu")
    seen, usual = [], predictor.transform
    predictor.transform = lambda image: seen.append(tuple(image.shape)) or usual(image)  # type: ignore[func-returns-value]
    predictor.predict(noise(100, 150), tiles=100)
    assert seen == [(3, 100, 100)] * 2
