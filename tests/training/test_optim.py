"""Learning rates and weight decay against the recipes; schedule; running average."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from tests import tiny
from torch import nn
from toy_training import toy_model

from piip import config
from piip.backbone.convnext import ConvNeXtBranch
from piip.backbone.vit import ViTBranch
from piip.model import PIIPModel
from piip.training.optim import (
    build_average,
    build_optimizer,
    layer_factor,
    layer_factors,
    parameter_groups,
    restore_optimizer,
    schedule_factor,
    set_learning_rate,
)
from piip.training.settings import Settings


def test_each_trainable_parameter_is_in_exactly_one_group() -> None:
    model = toy_model()
    frozen = model.backbone.branches[0].vit.patch_embed.proj.weight
    frozen.requires_grad_(False)
    groups = parameter_groups(model, 1.0, 0.05, 0.85)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters()} - {id(frozen)}
    kinds = [(group["lr"], group["weight_decay"]) for group in groups]
    assert len(kinds) == len(set(kinds))


def test_learning_rates_of_a_toy_by_hand() -> None:
    """Depths 2 and 4: L = 4; the shallow branch's blocks are layers 2 and 4, embeddings layer 0."""
    model = toy_model()
    rates = {
        id(parameter): group["lr"]
        for group in parameter_groups(model, 10.0, 0.05, 0.5)
        for parameter in group["params"]
    }
    expected = {
        "backbone.branches.0.vit.pos_embed": 10 * 0.5**5,
        "backbone.branches.0.vit.patch_embed.proj.weight": 10 * 0.5**5,
        "backbone.branches.0.vit.blocks.0.attn.qkv.weight": 10 * 0.5**3,
        "backbone.branches.0.vit.blocks.1.norm2.bias": 10 * 0.5,
        "backbone.branches.1.vit.patch_embed.proj.bias": 10 * 0.5**5,
        "backbone.branches.1.vit.blocks.0.ls1.gamma": 10 * 0.5**4,
        "backbone.branches.1.vit.blocks.1.mlp.fc1.weight": 10 * 0.5**3,
        "backbone.branches.1.vit.blocks.3.mlp.fc2.bias": 10 * 0.5,
        "head.rpn.conv.weight": 10,
    }
    named = dict(model.named_parameters())
    for name, rate in expected.items():
        assert rates[id(named[name])] == pytest.approx(rate, rel=1e-12), name
    for name, parameter in named.items():
        if not name.startswith("backbone.branches."):
            assert rates[id(parameter)] == 10, name


def test_no_weight_decay_on_vectors_and_biases() -> None:
    model = toy_model()
    decays = {
        id(parameter): group["weight_decay"]
        for group in parameter_groups(model, 1.0, 0.05, 0.85)
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        plain = parameter.ndim == 1 or name.endswith("bias")
        assert decays[id(parameter)] == (0.0 if plain else 0.05), name
    assert decays[id(model.backbone.branches[0].vit.pos_embed)] == 0.05  # of a branch, so not a top-level name


def test_single_numbers_such_as_the_weights_of_the_merge_have_weight_decay() -> None:
    model = PIIPModel(tiny.model(2))
    merge = {id(parameter) for parameter in model.backbone.parameters() if parameter.ndim == 0}
    assert len(merge) == 2
    groups = parameter_groups(model, lr=1.0, weight_decay=0.05, layer_decay=1.0)
    assert {group["weight_decay"] for group in groups for p in group["params"] if id(p) in merge} == {0.05}


def test_layers_equal_the_official_configs(goldens: Path) -> None:
    """`skip_stride` of the official recipes is L / depth, also where that is no integer."""
    seen = set()
    for file in (goldens.parent / "configs" / "mmdetection").glob("*.json"):
        content = json.loads(file.read_text())
        recipe = content["optimizer"].get("paramwise_cfg", {})
        branches = content["model"]["backbone"]
        names = sorted(name for name in branches if name.startswith("branch") and isinstance(branches[name], dict))
        depths = [branches[name].get("depth") for name in names]  # the largest model first
        if not depths or None in depths:
            continue
        rate, deepest = recipe["layer_decay_rate"], recipe["num_layers"]
        assert deepest == max(depths)
        for depth, stride in zip(depths, [1, *recipe["skip_stride"]], strict=True):
            seen.add(stride)
            assert math.isclose(layer_factor(0, deepest, rate), rate ** (deepest + 1))
            assert stride == deepest / depth, file  # the default
    assert seen == {1, 1.5, 2}


def test_convnext_branches() -> None:
    """Blocks of a ConvNeXt are spread over the ViT's layers; its unused classifier norm is not trained."""
    vit = toy_model().backbone.branches[1]
    stages = ((1, 8), (1, 16), (2, 32), (1, 32))
    branch = config.Branch(family="convnext", size=64, stages=stages, groups=((0, 3), (4, 7)))
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.branches = nn.ModuleList([ConvNeXtBranch(branch), vit])
    factors = layer_factors(model, 0.5, whole_layers=False)  # depths 8 and 4
    names = {
        "backbone.branches.0.convnext.stem.0.weight": 0.5**5,
        "backbone.branches.0.convnext.stages.0.blocks.0.conv_dw.weight": 0.5**4.5,
        "backbone.branches.0.convnext.stages.3.blocks.0.conv_dw.weight": 0.5,
        "backbone.branches.1.vit.blocks.3.attn.qkv.weight": 0.5,
    }
    for name, factor in names.items():
        assert factors[name] == pytest.approx(factor), name
    grouped = {id(parameter) for group in parameter_groups(model, 1.0, 0.05, 0.5) for parameter in group["params"]}
    assert grouped == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def test_a_layer_that_is_no_whole_number_is_rounded_down() -> None:
    """Official groups have the whole number of the layer in their names; of 32 blocks under 48 layers every other one
    would be half a layer higher."""
    vit = toy_model().backbone.branches[1]  # of 4 blocks
    six = vit.config.model_copy(update={"depth": 6, "groups": config.even_groups(6, 2), "windows": (None,) * 6})
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.branches = nn.ModuleList([vit, ViTBranch(six)])
    factors = layer_factors(model, 0.5)
    ours = [factors[f"backbone.branches.0.vit.blocks.{block}.attn.qkv.weight"] for block in range(4)]
    assert ours == [0.5 ** (7 - layer) for layer in (1, 3, 4, 6)]
    exact = layer_factors(model, 0.5, whole_layers=False)
    assert exact["backbone.branches.0.vit.blocks.0.attn.qkv.weight"] == 0.5**5.5


def test_weight_decay_of_everything() -> None:
    groups = build_optimizer(toy_model(), Settings(decay_all=True, weight_decay=0.1)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.1}


def test_heads_of_single_branches_have_a_factor_of_their_own() -> None:
    """As the official classifiers', which call them parts of the branches."""
    branch = config.Branch(
        size=32, width=32, depth=2, heads=2, groups=((0, 1),), windows=None, prefix_tokens=1, position_grid=2
    )
    head = config.Classifier()
    backbone = config.Backbone(branches=(branch, branch), interaction=config.Interaction(heads=4), maps=None)
    preprocess = config.Preprocess(long_side=32, short_side=32)
    model = PIIPModel(config.Model(name="x", backbone=backbone, head=head, classes=("a", "b"), preprocess=preprocess))
    given = Settings(lr=1.0, lr_batch_size=None, layer_decay=1.0, new_lr_factor=10.0, branch_head_lr_factor=2.0)
    rates = {id(p): group["lr"] for group in build_optimizer(model, given).param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        expected = 1.0 if name.startswith("backbone.branches.") else 2.0 if name.startswith("head.") else 10.0
        assert rates[id(parameter)] == expected, name


def test_strides_of_branches_can_be_given() -> None:
    model = toy_model()  # depths 2 and 4
    given = Settings(layer_decay=0.5, layer_strides=(1.0, None), lr_batch_size=None, lr=1.0)
    groups = build_optimizer(model, given).param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if name.startswith("backbone.branches.0.vit.blocks."):
            assert rates[id(parameter)] == pytest.approx(0.5 ** (4 - int(name.split(".")[5])))
        elif name.startswith("backbone.branches.0."):
            assert rates[id(parameter)] == pytest.approx(0.5**5)
        else:
            assert rates[id(parameter)] == 1.0, name
    with pytest.raises(ValueError, match="for 2 branches: give one number"):
        layer_factors(model, 0.5, (1.0,))
    with pytest.raises(ValueError, match="2 blocks of branch 0 would reach layer 6 of 4; use at most 2, or null"):
        layer_factors(model, 0.5, (3.0, None))


def test_step_schedule_is_the_papers() -> None:
    """12 epochs of 1000 steps: warm-up over 500 from a thousandth, a tenth from epoch 8 and again from epoch 11."""
    settings = Settings()
    factor = [schedule_factor(settings, step, 12_000) for step in range(12_000)]
    assert factor[0] == pytest.approx(0.001)
    assert factor[250] == pytest.approx((0.001 + 1) / 2)
    assert factor[500] == factor[7999] == 1.0
    assert factor[8000] == factor[10_999] == pytest.approx(0.1)
    assert factor[11_000] == factor[-1] == pytest.approx(0.01)


def test_short_runs_have_a_short_warmup() -> None:
    settings = Settings(schedule="constant")
    factor = [schedule_factor(settings, step, 40) for step in range(40)]
    assert factor[0] == pytest.approx(0.001)
    assert factor[3] < 1.0
    assert factor[4:] == [1.0] * 36
    assert schedule_factor(Settings(schedule="constant", warmup_iters=0), 0, 40) == 1.0
    assert schedule_factor(settings, 0, 3) == 1.0


def test_cosine_schedule() -> None:
    settings = Settings(schedule="cosine", warmup_iters=0, min_lr_ratio=0.1)
    assert schedule_factor(settings, 0, 100) == 1.0
    assert schedule_factor(settings, 50, 100) == pytest.approx(0.55)
    assert schedule_factor(settings, 100, 100) == pytest.approx(0.1)


def test_ends_as_learning_rates_are_the_same_for_every_group() -> None:
    """As timm's schedule in the official classification: from 1e-6 in a quarter of the run, and down to 1e-5."""
    settings = Settings(schedule="cosine", warmup_part=0.25, warmup_lr=1e-6, min_lr=1e-5, epochs=20)
    for peak in (3e-5, 3e-4):
        rates = [peak * schedule_factor(settings, step, 200, peak) for step in range(201)]
        assert rates[0] == pytest.approx(1e-6)
        assert rates[20] == pytest.approx(1e-6 + 0.4 * (peak - 1e-6))
        assert rates[50] == pytest.approx(1e-5 + (peak - 1e-5) * (1 + math.cos(math.pi / 4)) / 2)
        assert rates[200] == pytest.approx(1e-5)


def test_learning_rate_by_epoch_is_an_epoch_late() -> None:
    settings = Settings(schedule="cosine", warmup_part=0.25, warmup_lr=1e-6, min_lr=1e-5, epochs=20, lr_by_epoch=True)
    usual = settings.model_copy(update={"lr_by_epoch": False})
    for epoch in range(20):
        rates = {schedule_factor(settings, step, 200, 3e-5) for step in range(10 * epoch, 10 * epoch + 10)}
        assert rates == {schedule_factor(usual, 10 * max(0, epoch - 1), 200, 3e-5)}


def test_poly_schedule() -> None:
    settings = Settings(schedule="poly", warmup_iters=0, power=2.0, min_lr_ratio=0.2)
    assert schedule_factor(settings, 0, 100) == 1.0
    assert schedule_factor(settings, 50, 100) == pytest.approx(0.2 + 0.8 * 0.25)
    assert schedule_factor(settings, 100, 100) == pytest.approx(0.2)


def test_new_parameters_may_learn_faster() -> None:
    model = toy_model()
    rates = {
        id(parameter): group["lr"]
        for group in parameter_groups(model, 1.0, 0.05, 0.5, new_lr_factor=7.0)
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert (rates[id(parameter)] == 7.0) == (not name.startswith("backbone.branches.")), name


def test_learning_rate_follows_the_images_per_step() -> None:
    assert Settings(lr=1e-4, batch_size=16).scaled_lr() == pytest.approx(1e-4)
    assert Settings(lr=1e-4, batch_size=2, grad_accumulation=4).scaled_lr(2) == pytest.approx(1e-4)
    assert Settings(lr=1e-4, batch_size=4).scaled_lr() == pytest.approx(0.25e-4)
    assert Settings(lr=1e-4, batch_size=4, lr_batch_size=None).scaled_lr(8) == 1e-4


def test_set_learning_rate_keeps_the_ratios() -> None:
    model = toy_model()
    optimizer = build_optimizer(model, Settings(lr=1e-3, lr_batch_size=None, layer_decay=0.5))
    set_learning_rate(optimizer, lambda peak: 0.1)
    set_learning_rate(optimizer, lambda peak: 0.2)
    rates = sorted({group["lr"] for group in optimizer.param_groups})
    assert rates == pytest.approx([0.2e-3 * 0.5**power for power in (5, 4, 3, 2, 1, 0)])


def test_running_average_against_the_formula() -> None:
    model = nn.Linear(3, 3)
    average = build_average(model, 0.5)
    history = []
    for step in range(30):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update_parameters(model)
        history.append(average.module.weight[0, 0].item())
    expected = 0.0
    for update in range(1, 30):
        keep = min(0.5, (1 + update) / (10 + update))
        expected = keep * expected + (1 - keep) * update
        assert history[update] == pytest.approx(expected, rel=1e-5)
    assert not any(a is b for a, b in zip(model.parameters(), average.module.parameters(), strict=True))


def test_new_parts_may_learn_faster() -> None:
    """The classifiers' recipe: ten times the rate of the pretrained branches for interactions, merge and head."""
    model = toy_model()
    usual, faster = (_rates(model, factor) for factor in (1.0, 10.0))
    assert any(name.startswith("head.") for name in faster)
    for name, rate in faster.items():
        factor = 1.0 if name.startswith("backbone.branches.") else 10.0
        assert rate == pytest.approx(usual[name] * factor), name


def _rates(model: nn.Module, new_lr_factor: float) -> dict[str, float]:
    groups = parameter_groups(model, 1.0, 0.05, 0.85, new_lr_factor)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    return {name: rate[id(parameter)] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("saved", "now"), [(True, None), (None, True), (None, None)])
def test_the_state_of_a_fused_optimizer_goes_on_without_and_the_other_way_round(
    saved: bool | None, now: bool | None
) -> None:
    def take_steps(model: nn.Module, optimizer: torch.optim.AdamW, steps: range) -> None:
        for step in steps:
            for index, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (index - 1) + 0.01 * step)
            set_learning_rate(optimizer, lambda _: 1.0)
            optimizer.step()

    torch.manual_seed(0)
    settings, throughout = Settings(lr=1e-2, lr_batch_size=None), toy_model()
    interrupted = copy.deepcopy(throughout)
    take_steps(throughout, build_optimizer(throughout, settings), range(4))
    before = build_optimizer(interrupted, settings, fused=saved)
    take_steps(interrupted, before, range(2))
    after = build_optimizer(interrupted, settings, fused=now)
    restore_optimizer(after, copy.deepcopy(before.state_dict()))
    take_steps(interrupted, after, range(2, 4))
    assert {group["fused"] for group in after.param_groups} == {now}
    for one, other in zip(throughout.parameters(), interrupted.parameters(), strict=True):
        torch.testing.assert_close(one, other)
