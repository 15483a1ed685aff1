"""Images of another size than the model's own, and another pyramid of the same branches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import tiny
from tests.test_cli_predict import run, weights  # noqa: F401 - a fixture

import piip
from piip import config, zoo
from piip.data.synthetic import make_scenes
from piip.data.transforms import size_in_tests
from piip.model import PIIPModel
from piip.prediction.objects import Result

IMAGE = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)


def detector() -> piip.PIIP:
    torch.manual_seed(0)
    return piip.PIIP(PIIPModel(tiny.model(classes=("disc", "triangle", "cross"))), device="cpu")


def predicted(model: piip.PIIP, **options: Any) -> Result:
    result = model.predict(IMAGE, conf=0.0, **options)
    assert isinstance(result, Result)
    return result


def same(one: Result, other: Result) -> None:
    assert len(one)
    torch.testing.assert_close(one.boxes, other.boxes)
    torch.testing.assert_close(one.scores, other.scores)


@pytest.mark.parametrize(
    ("image_size", "seen"), [(None, (89, 128)), (192, (133, 192)), (np.int64(64), (44, 64)), ("native", (90, 130))]
)
def test_what_the_network_sees(image_size: Any, seen: tuple[int, int]) -> None:
    """The tiny model's own limits are 128 and 96 pixels."""
    preprocess = detector().config.preprocess
    assert size_in_tests((90, 130), preprocess if image_size is None else preprocess.at(image_size)) == seen


def test_the_shorter_side_is_limited_in_proportion() -> None:
    changed = zoo.entry("piip_tsb_1568_1120_672_mask_rcnn").config().predicting_at(4000).preprocess
    assert (changed.long_side, changed.short_side) == (4000, 2401)


@pytest.mark.parametrize("image_size", [192, "native"])
def test_a_prediction_at_another_size_is_that_of_a_model_of_that_size(image_size: config.ImageSize) -> None:
    model = detector()
    other = PIIPModel(model.config.predicting_at(image_size))
    other.load_state_dict(model.model.state_dict())
    found = predicted(model, image_size=image_size)
    same(found, predicted(piip.PIIP(other, device="cpu")))
    same(predicted(model, imgsz=image_size), found)
    assert not torch.equal(predicted(model).boxes, found.boxes)  # and the next is as ever


def test_sizes_that_are_none() -> None:
    for wrong in (0, -5, "large", 1.5, True):
        with pytest.raises(ValueError, match=r"image_size .*: use the longer side in pixels, or 'native'"):
            detector().predict(IMAGE, image_size=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="image size 16: use at least 32 pixels"):
        detector().predict(IMAGE, image_size=16)
    with pytest.raises(ValueError, match="a classifier sees squares of one size"):
        piip.PIIP("piip_nano_classifier").config.predicting_at("native")


def test_another_pyramid_of_the_same_branches() -> None:
    model = detector()
    other = model.with_sizes((256, 64))
    assert [branch.size for branch in other.config.backbone.branches] == [256, 64]
    assert (other.config.preprocess.long_side, other.config.preprocess.short_side) == (256, 192)
    assert [branch.size for branch in model.config.backbone.branches] == [128, 96]
    built = PIIPModel(other.config)
    built.load_state_dict(model.model.state_dict())
    same(predicted(other), predicted(piip.PIIP(built, device="cpu")))
    ours, theirs = other.model.state_dict(), model.model.state_dict()
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in theirs)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((128,), "1 sizes for 2 branches: give one for each, finest first, as in 128/96"),
        ((96, 128), "must not grow"),
        ((128, 8), r"windows of \[2\] cells do not fit"),
        ((128, 0), "greater than 0"),
    ],
)
def test_pyramids_that_are_none(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detector().with_sizes(sizes)


def test_a_pyramid_of_a_name_is_not_built_yet_and_windows_follow() -> None:
    model = piip.PIIP("piip_h6b_512_192_upernet").with_sizes((1024, 384))
    assert model._model is None
    assert isinstance(model.config.head, config.UperNet)
    assert (model.config.head.window, model.config.preprocess.short_side) == (1024, 1024)


def test_training_and_evaluation(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes", train=2, val=1, seed=0, size=(64, 64))
    model = detector().with_sizes((64, 32))
    run = model.train(data, epochs=1, output=tmp_path / "runs", workers=0)
    kept = piip.PIIP(run.folder, device="cpu")
    assert [branch.size for branch in kept.config.backbone.branches] == [64, 32]
    assert kept.config.preprocess.long_side == 64
    expected = piip.PIIP(kept.config.predicting_at(96), device="cpu")
    expected.model.load_state_dict(kept.model.state_dict())
    found = kept.val(data, workers=0, image_size=96)
    assert found.scalars() == expected.val(data, workers=0).scalars()


def test_the_command_line(weights: Path, tmp_path: Path) -> None:  # noqa: F811
    data = make_scenes(tmp_path / "scenes", train=1, val=1, seed=0, size=(64, 64))
    image = next((data / "val").glob("*.jpg"), None) or next(data.rglob("*.png"), None) or next(data.rglob("*.jpg"))
    for number, options in enumerate((("--image-size", "native"), ("--sizes", "64/32"), ("--image-size", 96))):
        done = run("predict", image, "--weights", weights, "--output", tmp_path / f"p{number}", *options)
        assert done.exit_code == 0, str(done.exception)
    done = run("val", "--weights", weights, "--data", data, "--workers", 0, "--image-size", 64, "--sizes", "64/32")
    assert done.exit_code == 0, str(done.exception)
    wrong = run("predict", image, "--weights", weights, "--image-size", "big")
    assert "--image-size big: use the longer side in pixels, or native" in str(wrong.exception)
    wrong = run("train", "--model", "piip_nano_mask_rcnn", "--data", data, "--sizes", "64x32")
    assert "--sizes 64x32: use a side in pixels for each branch" in str(wrong.exception)
