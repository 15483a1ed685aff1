"""Tiles that keep context: coarse branches see more of a photo than the finest one's tile."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny
from tests.prediction.test_tiled import detector, noise, segmentor
from tests.test_cli_predict import run

import piip
from piip import config
from piip.data.batches import collate
from piip.data.samples import Sample
from piip.data.surround import Shown, Surroundings
from piip.data.synthetic import make_scenes
from piip.data.transforms import normalised
from piip.model import PIIPModel
from piip.prediction.objects import Result
from piip.prediction.predictor import Predictor
from piip.structures import Batch

VIEWS: tuple[config.View, ...] = (1, "image")


def held(model: PIIPModel | None = None) -> piip.PIIP:
    return piip.PIIP(detector(masks=False) if model is None else model, device="cpu")


def found(model: piip.PIIP, image: np.ndarray, **options: Any) -> Result:
    result = model.predict(image, conf=0.0, **options)
    assert isinstance(result, Result)
    assert len(result) > 3
    return result


def same(one: Result, other: Result) -> bool:
    return torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)


def test_views_of_one_change_not_a_bit() -> None:
    model, image = held(), noise(100, 150)
    seen = model.with_views((1, 1))
    assert seen.config == model.config
    assert same(found(seen, image, tiles=64, batch_size=2), found(model, image, tiles=64, batch_size=2))


def test_of_an_image_that_is_one_tile_all_branches_see_the_same() -> None:
    model, image = held(), noise(80, 110)
    whole = found(model, image, tiles=110)
    assert same(found(model.with_views(VIEWS), image, tiles=110), whole)
    assert same(found(model.with_views((1, 3.5)), image, tiles=200), whole)
    assert same(found(model.with_views(VIEWS), image), found(model, image))


def test_what_is_beyond_a_tile_counts() -> None:
    """A tile says other things where the photo around it is another one, and the same where the view ends before."""
    model, image = held(), noise(64, 300)
    other = image.copy()
    other[:, 200:] = 0
    taken: list[torch.Tensor] = []
    for views, photo in ((VIEWS, image), (VIEWS, other), ((1, 2), image), ((1, 2), other)):
        predictor = model.with_views(views).predictor()
        run_batch = predictor._run

        def keep(batch: Any, copied: Any, run_batch: Any = run_batch) -> Any:
            predictions = run_batch(batch, copied)
            taken.append(predictions[0]["boxes"])
            return predictions

        predictor._run = keep  # type: ignore[method-assign]
        first = len(taken)
        list(predictor.stream([photo], conf=0.0, tiles=64, overlap=0.0))
        del taken[first + 1 :]  # the leftmost tile
    assert not torch.equal(taken[0], taken[1])
    assert torch.equal(taken[2], taken[3])


def test_tiles_of_a_batch_are_those_one_by_one() -> None:
    model, image = held().with_views((1, 2)), noise(100, 150)
    together, alone = (found(model, image, tiles=64, batch_size=size) for size in (4, 1))
    assert torch.allclose(together.boxes, alone.boxes, atol=1e-2)
    assert torch.allclose(together.scores, alone.scores, atol=1e-4)


def test_label_maps() -> None:
    model, image = held(segmentor()), noise(100, 150)
    plain, seen = (each.predict(image, tiles=64) for each in (model, model.with_views(VIEWS)))
    assert not np.array_equal(plain.scores, seen.scores)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="see whole tiles, not windows of 32 pixels"):
        model.with_views(VIEWS).use_windows(32).predict(image, tiles=64)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((1,), "1 views for 2 branches"),
        ((2, 2), "view 2.0 of the finest branch"),
        ((1, 0.5), "greater than or equal to 1"),
        ((1, "photo"), "'image'"),
    ],
)
def test_views_that_are_none(views: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        held().with_views(views)


def test_views_need_maps_and_graphs_have_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="views are for tiles, which need feature maps"):
        piip.PIIP("piip_nano_classifier", device="cpu").with_views((1, 1, 2))
    with pytest.raises(ValueError, match="export with_views of 1 for every branch"):
        held().with_views(VIEWS).export(tmp_path / "model.pt2")


def test_heads_that_share_a_backbone_share_its_views() -> None:
    model = held().with_views(VIEWS)
    (one, other) = piip.predict_together([model, model.with_views(VIEWS)], noise(100, 150), conf=0.0, tiles=64)
    alone = found(model, noise(100, 150), tiles=64)
    assert isinstance(one, Result)
    assert isinstance(other, Result)
    assert same(one, alone)
    assert same(other, alone)


@pytest.mark.slow
def test_training_keeps_views_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes", train=2, val=1, seed=0, size=(96, 128))
    settings: dict[str, Any] = {
        "augmentation": {"tiles": 64, "zoom": (0.7, 1.3), "colour": 0.3},
        "schedule": "constant",
        "warmup_iters": 0,
        "lr": 1e-3,
        "batch_size": 2,
        "workers": 0,
        "eval_interval": 9,
        "check_images": False,
        "log": "none",
    }

    def begun() -> piip.PIIP:
        torch.manual_seed(0)
        return piip.PIIP(PIIPModel(tiny.model(masks=False)), device="cpu").with_views(VIEWS)

    straight = begun().train(data, 2, output=tmp_path / "straight", **settings)
    first = begun().train(data, 1, output=tmp_path / "resumed", **settings)
    before = piip.PIIP(first.folder, device="cpu")
    resumed, _ = piip.PIIP.resume(first.folder, 2)
    expected = piip.PIIP(straight.last_weights, device="cpu")
    assert [branch.view for branch in expected.config.backbone.branches] == [1, "image"]
    ended = piip.PIIP(first.folder / "weights" / "last.safetensors", device="cpu")
    ours, theirs, early = (each.model.state_dict() for each in (ended, expected, before))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(early[name], theirs[name]) for name in theirs)
    assert resumed.config.backbone.views == (1, "image")


def test_the_command_line(tmp_path: Path) -> None:
    weights = piip.PIIP(tiny.model(classes=("disc", "triangle", "cross")), device="cpu").save(tmp_path / "model")
    data = make_scenes(tmp_path / "scenes", train=1, val=1, seed=0, size=(64, 96))
    Image.fromarray(noise(64, 96)).save(tmp_path / "photo.png")
    more = ("--tiles", 48, "--batch-size", 3, "--detections", 7)
    lists = []
    for views in ("1,1", "1/image"):
        output = tmp_path / f"out{len(lists)}"
        common = ("--weights", weights, "--views", views, *more)
        done = run("predict", tmp_path / "photo.png", "--conf", 0, "--output", output, *common)
        assert done.exit_code == 0, str(done.exception)
        lists.append(json.loads((output / "predictions.json").read_text()))
    assert lists[0] != lists[1]
    done = run("val", "--data", data, "--output", tmp_path / "val", "--workers", 0, *common)
    assert done.exit_code == 0, str(done.exception)
    wrong = run("predict", tmp_path / "photo.png", "--weights", weights, "--views", "1,all", "--tiles", 48)
    assert "--views 1,all: give each branch" in str(wrong.exception)


def of_a_far_mark(count: int, views: tuple[config.View, ...], generator: torch.Generator) -> Batch:
    """Tiles of noise, all of class 1 where the photo is bright at its other end, else of class 0."""
    samples = []
    for index in range(count):
        photo = torch.randint(60, 196, (3, 64, 256), dtype=torch.uint8, generator=generator)
        bright = int(torch.randint(2, (), generator=generator))
        photo[:, :, :96] = 255 * bright
        left = int(torch.randint(160, 193, (), generator=generator))
        preprocess = config.Preprocess(long_side=64, short_side=64)
        around = Surroundings(photo, preprocess, views).of(Shown.tile(left, 0, left + 64, 64))
        tile = normalised(photo[:, :, left : left + 64], preprocess)
        samples.append(Sample(tile, torch.full((64, 64), bright), (64, 64), index, around))
    return collate(samples, 32)


@pytest.mark.slow
@pytest.mark.parametrize("views", [(1, 1), VIEWS])
def test_what_only_the_surroundings_tell_is_learnt_with_views_alone(views: tuple[config.View, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    described = segmentor().config.with_views(views).model_copy(update={"classes": ("dark", "bright")})
    model = PIIPModel(described).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        loss = sum(model.loss(of_a_far_mark(4, described.backbone.views, generator)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch = of_a_far_mark(32, described.backbone.views, generator)
    found = Predictor(model, "cpu").run(batch)
    right = [(one["labels"] == target).float().mean() for one, target in zip(found, batch.targets, strict=True)]
    share = torch.stack(right).mean().item()
    assert share > 0.95 if views == VIEWS else share < 0.8
