"""The official DINO (reduced in widths): every stage of the detector, and its losses, against the official code."""

import pytest
import torch
from tests.conftest import shared_folder
from tests.weights.golden import Golden, max_abs, official_losses
from torch import Tensor

from piip.heads.dino.head import Decoded
from piip.heads.dino.matching import objects_of
from piip.model import PIIPModel
from piip.structures import Batch, Instances
from piip.weights import opengvlab

NAME = "dino_mini"
TOLERANCE = 3e-4
OBJECTS = Instances(
    torch.tensor([[40.0, 30, 200, 180], [220, 60, 300, 120], [10, 200, 90, 330], [300, 150, 620, 400]]),
    torch.tensor([3, 17, 17, 60]),
)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden(shared_folder("reference", "goldens"), NAME)


@pytest.fixture(scope="module")
def model(golden: Golden) -> PIIPModel:
    model = opengvlab.load(golden.spec["model"], golden.state_dict())
    assert isinstance(model, PIIPModel)
    return model


@pytest.fixture(scope="module")
def features(model: PIIPModel, golden: Golden) -> list[Tensor]:
    with torch.no_grad():
        return model.backbone(golden.image())


@pytest.fixture(scope="module")
def decoded(model: PIIPModel, golden: Golden, features: list[Tensor]) -> Decoded:
    with torch.no_grad():
        return model.head(features, [tuple(golden.spec["img_shape"])], tuple(golden.spec["input"][2:]))


@torch.no_grad()
def test_levels(model: PIIPModel, golden: Golden, features: list[Tensor]) -> None:
    for index, level in enumerate(model.head.mapper(features)):
        golden.assert_close(f"neck{index}", level, TOLERANCE)


def test_last_layer(golden: Golden, decoded: Decoded) -> None:
    assert max_abs(decoded.logits[-1], golden.expected["all_cls"]) <= TOLERANCE
    assert max_abs(decoded.boxes[-1], golden.expected["all_box"]) <= TOLERANCE


def test_detections(model: PIIPModel, golden: Golden, features: list[Tensor], monkeypatch) -> None:
    monkeypatch.setattr(model.backbone, "forward", lambda _: features)
    image, original = tuple(golden.spec["img_shape"]), tuple(golden.spec["ori_shape"])
    found = model.predict(Batch(golden.image(), [image], [original]))[0]
    assert list(found) == ["boxes", "scores", "labels"]
    assert (found["scores"].diff() <= 0).all()
    expected = golden.expected["boxes_scores_labels"]
    actual = torch.cat((found["boxes"], found["scores"][:, None], found["labels"][:, None]), 1)
    assert len(actual) == len(expected)
    scale = torch.tensor([1.0, 1, 1, 1, 100, 1000])  # within 0.05 pixels and 0.0005 of a score, of the same class
    distance = ((actual[:, None] - expected[None]) * scale).abs().amax(-1)
    assert distance.amin(0).max() <= 0.05
    assert distance.amin(1).max() <= 0.05


@torch.no_grad()
def test_losses_of_every_layer(model: PIIPModel, golden: Golden, decoded: Decoded) -> None:
    expected = official_losses(shared_folder("reference", "goldens"), NAME)
    losses = model.head.layer_losses(decoded, objects_of([OBJECTS], [tuple(golden.spec["img_shape"])]))
    names = [*(f"decoder{index}" for index in range(6)), "encoder_topk"]
    assert set(names) == set(expected)
    for name, (actual, wanted) in {name: (losses[i], expected[name]) for i, name in enumerate(names)}.items():
        assert actual.tolist() == pytest.approx(wanted, rel=1e-3), name


@torch.no_grad()
def test_named_losses_are_those_of_the_layers(
    model: PIIPModel, golden: Golden, features: list[Tensor], monkeypatch
) -> None:
    monkeypatch.setattr(model.backbone, "forward", lambda _: features)
    image, original = tuple(golden.spec["img_shape"]), tuple(golden.spec["ori_shape"])
    losses = model.loss(Batch(golden.image(), [image], [original], [OBJECTS], [0]))
    expected = official_losses(shared_folder("reference", "goldens"), NAME)
    layers = [expected[f"decoder{index}"] for index in range(6)]
    assert [losses[f"loss_{kind}"].item() for kind in ("cls", "bbox", "giou")] == pytest.approx(layers[-1], rel=1e-3)
    assert losses["loss_aux"].item() == pytest.approx(sum(map(sum, layers[:-1])), rel=1e-3)
    assert losses["loss_encoder"].item() == pytest.approx(sum(expected["encoder_topk"]), rel=1e-3)
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_giou", "loss_aux", "loss_encoder"}
