"""Backbones that are stored in half precision: as near to float32 as autocast is, in all families."""

import copy

import numpy as np
import pytest
import torch
from tests import tiny
from torch import Tensor

from piip import config
from piip.inference import fuse
from piip.inference.current_copy import InferenceCopy, stored_in_half
from piip.inference.half import HalfModel, with_half_backbone
from piip.model import PIIPModel
from piip.prediction.options import Precision
from piip.prediction.predictor import Predictor
from piip.structures import BranchState, View

LIMITS = {torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""root mean square difference over the standard deviation"""


def with_branch(**fields: object) -> config.Model:
    described = tiny.model(2)
    backbone = described.backbone
    branches = (tiny.branch(128, 32, **fields), *backbone.branches[1:])
    return described.model_copy(update={"backbone": backbone.model_copy(update={"branches": branches})})


MODELS = {
    "vit": tiny.model(3),
    "prefix tokens": with_branch(prefix_tokens=2, position_prefix=2),
    "beit": with_branch(family="beit", position_grid=None, windows=(2, 8, 2, 8)),
    "uni_perceiver": with_branch(family="uni_perceiver"),
    "intern_vit": with_branch(family="intern_vit"),
    "clip": with_branch(family="clip", prefix_tokens=1, position_prefix=1),
    "cross attention": tiny.model(2).model_copy(update={"backbone": tiny.backbone(2, attention="cross")}),
}


def built(described: config.Model) -> PIIPModel:
    torch.manual_seed(0)
    model = PIIPModel(described).eval()
    for name, parameter in model.backbone.named_parameters():
        if parameter.ndim == 1 and "gamma" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def rms(expected: Tensor, actual: Tensor) -> float:
    return float((expected - actual.float()).square().mean().sqrt() / expected.std())


@pytest.mark.parametrize(("name", "dtype"), [("vit", torch.float16), *((name, torch.bfloat16) for name in MODELS)])
def test_maps_are_those_of_float32_but_for_rounding(name: str, dtype: torch.dtype) -> None:
    model, images = built(MODELS[name]), torch.randn(2, 3, 112, 150)
    with torch.inference_mode():
        expected, found = fuse(model).features(images), with_half_backbone(fuse(model), dtype).features(images)
    for one, other in zip(expected, found, strict=True):
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        assert other.dtype == dtype
        assert 0 < rms(one, other) < LIMITS[dtype]


def test_states_are_handed_on_in_float32() -> None:
    model, images = built(MODELS["prefix tokens"]), torch.randn(1, 3, 128, 96)
    model.head.reads = "states"
    half = with_half_backbone(fuse(model), torch.bfloat16)
    with torch.inference_mode():
        expected, found = fuse(model).features(images), half.features(images)
    for one, other in zip(expected, found, strict=True):
        assert isinstance(one, BranchState)
        assert isinstance(other, BranchState)
        assert other.tokens.dtype == torch.float32
        assert rms(one.tokens, other.tokens) < LIMITS[torch.bfloat16]
        assert other.prefix is None or other.prefix.dtype == torch.float32


def test_views_are_taken_in_float32() -> None:
    model, images = built(tiny.model(2)), torch.randn(1, 3, 128, 128)
    views = [None, View(torch.randn(1, 3, 128, 128), torch.tensor([[[0.5, 0.5], [0.25, 0.25]]]))]
    half = with_half_backbone(fuse(model), torch.bfloat16)
    with torch.inference_mode():
        pairs = zip(fuse(model).features(images, views), half.features(images, views), strict=True)
        assert all(rms(one, other) < LIMITS[torch.bfloat16] for one, other in pairs)  # type: ignore[arg-type]


def test_autocast_around_it_changes_nothing_in_the_backbone() -> None:
    half, images = with_half_backbone(fuse(built(tiny.model(2))), torch.bfloat16), torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        alone = half.features(images)
        with torch.autocast("cpu", torch.float16):
            within = half.features(images)
    assert all(torch.equal(one, other) for one, other in zip(alone, within, strict=True))  # type: ignore[arg-type]


def test_a_predictor_that_is_told_so_runs_it_and_leaves_the_model_alone() -> None:
    head = config.UperNet(channels=16, auxiliary_channels=None)
    model = built(tiny.model(2).model_copy(update={"head": head}))
    before = copy.deepcopy(model.state_dict())
    photo = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    expected = Predictor(model, "cpu").predict(photo).results[0]
    predictor = Predictor(model, "cpu", "bf16")
    predictor.inference = InferenceCopy(predictor.model, half=torch.bfloat16)  # as on other devices
    found = predictor.predict(photo).results[0]
    assert type(predictor.inference.get()) is HalfModel
    assert stored_in_half(model) is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.05)
    assert not np.array_equal(found.scores, expected.scores)


def test_the_cpu_keeps_to_autocast() -> None:
    predictor = Predictor(built(tiny.model(2)), "cpu", "bf16")
    assert predictor.inference.half is None
    assert stored_in_half(predictor.inference.get()) is None


@pytest.mark.parametrize(("stored", "precision"), [(torch.float16, "bf16"), (torch.bfloat16, "fp16")])
def test_weights_in_the_other_half_precision_are_made_float32(stored: torch.dtype, precision: Precision) -> None:
    model = built(tiny.model(2)).to(stored)
    photo = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    expected = Predictor(model, "cpu").predict(photo, conf=0.0).results[0]
    found = Predictor(model, "cpu", precision).predict(photo, conf=0.0).results[0]
    assert {parameter.dtype for parameter in model.parameters()} == {stored}
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.05)


def test_it_follows_the_weights() -> None:
    model = built(tiny.model(2))
    inference = InferenceCopy(model, half=torch.float16)
    first = inference.get()
    assert inference.get() is first
    with torch.no_grad():
        model.backbone.branches[0].vit.blocks[0].mlp.fc1.weight.mul_(2)
    assert inference.get() is not first
    assert type(inference.get()) is HalfModel


@pytest.mark.slow
def test_compiled_as_one_graph() -> None:
    half = with_half_backbone(fuse(built(tiny.model(2)), mode="compile"), torch.bfloat16, "compile")
    images = torch.randn(1, 3, 96, 96).bfloat16()
    with torch.inference_mode():
        expected = half.backbone(images)
        compiled = torch.compile(half.backbone, backend="eager", fullgraph=True, dynamic=False)
        assert all(torch.equal(one, other) for one, other in zip(expected, compiled(images), strict=True))
