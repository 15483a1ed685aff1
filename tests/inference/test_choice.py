"""The one place that decides what runs: what it changes, and that it changes nothing else."""

import copy
import pickle

import pytest
import torch
from tests import tiny
from torch import nn

from piip.backbone.block import Blocks
from piip.heads.mask_rcnn.fpn import FPN
from piip.inference import choose, fuse
from piip.inference.choice import PLAIN_OF, TABLE, is_for_a_cpu
from piip.model import PIIPModel


def kinds(model: nn.Module) -> list[type[nn.Module]]:
    return [type(module) for module in model.modules()]


def twins_in(model: nn.Module) -> set[type[nn.Module]]:
    return set(kinds(model)) & set(PLAIN_OF)


def test_a_model_that_trains_has_the_same_parameters_under_the_same_names() -> None:
    model = PIIPModel(tiny.model(3))
    before, plain = dict(model.named_parameters()), kinds(model)
    choose(model, "train")
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(after[name] is parameter for name, parameter in before.items())
    assert type(model) is PIIPModel
    assert twins_in(model)
    choose(model, "export")
    assert kinds(model) == plain


@pytest.mark.parametrize(("mode", "on_cpu"), TABLE)
def test_each_twin_is_a_kind_of_what_it_stands_for(mode: str, on_cpu: bool) -> None:
    for plain, twin in TABLE[mode, on_cpu].items():  # type: ignore[index]
        assert issubclass(twin, plain)
        assert PLAIN_OF[twin] is plain


def test_it_can_be_chosen_again() -> None:
    model = PIIPModel(tiny.model(2))
    choose(model, "predict")
    predicting = kinds(model)
    choose(model, "train")
    assert kinds(model) != predicting
    choose(model, "predict")
    assert kinds(model) == predicting


def test_copies_and_pickles_keep_what_was_chosen() -> None:
    model = PIIPModel(tiny.model(2))
    choose(model, "train")
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kinds(copied) == kinds(model)


def test_hooks_stay() -> None:
    model, calls = PIIPModel(tiny.model(2)).eval(), []
    model.backbone.branches[0].vit.blocks.register_forward_hook(lambda *_: calls.append(1))
    choose(model, "train")
    model.backbone(torch.randn(1, 3, 64, 64))
    assert len(calls) == model.config.backbone.groups


@torch.no_grad()
def test_a_model_that_trains_is_folded_as_a_plain_one() -> None:
    model, images = PIIPModel(tiny.model(2)).eval(), torch.randn(1, 3, 64, 96)
    expected = fuse(model).backbone(images)
    choose(model, "train")
    trained = kinds(model)
    fused = fuse(model)
    assert kinds(model) == trained
    for actual, wanted in zip(fused.backbone(images), expected, strict=True):
        assert torch.equal(actual, wanted)


def test_elsewhere_and_in_half_precision_the_cpu_s_own_twins_are_not_chosen() -> None:
    model = PIIPModel(tiny.model(2)).bfloat16()
    assert not is_for_a_cpu(model)
    choose(model, "train")
    assert FPN in kinds(model)
    assert Blocks not in kinds(model)  # windows without padding are for all


@torch.no_grad()
def test_a_copy_to_export_is_folded_and_plain() -> None:
    model, images = PIIPModel(tiny.model(2)).eval(), torch.randn(1, 3, 64, 96)
    fused = fuse(model, mode="export")
    assert not twins_in(fused)
    for actual, wanted in zip(fused.backbone(images), fuse(model).backbone(images), strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-4, rtol=1e-4)


def test_other_modes_are_refused() -> None:
    model = PIIPModel(tiny.model(2))
    with pytest.raises(ValueError, match="mode 'fast': use one of 'train', 'predict', 'compile', 'export'"):
        choose(model, "fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode 'train': use one of 'predict', 'compile', 'export'"):
        fuse(model, mode="train")
