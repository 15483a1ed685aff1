"""What training from pretrained branches begins with elsewhere: values as those of the official classes."""

import math

import pytest
import torch
from torch import nn

from piip import config
from piip.backbone import PIIPBackbone
from piip.backbone.interaction import DeformableCrossAttention
from piip.ops.deformable_attention import ring_offsets


def branch(width: int, size: int) -> config.Branch:
    return config.Branch(size=size, width=width, depth=2, heads=2, groups=2, windows=None, position_grid=4)


def backbone(count: int = 2, **interaction: object) -> PIIPBackbone:
    torch.manual_seed(0)
    branches = (branch(64, 64), branch(128, 32))[-count:]
    exchange = config.Interaction.model_validate({"heads": 4, **interaction}) if count > 1 else None
    return PIIPBackbone(config.Backbone(branches=branches, interaction=exchange))


def assert_spread(weight: torch.Tensor, std: float) -> None:
    """Of some hundreds of values and more: a few percent around what was asked for."""
    assert float(weight.detach().std()) == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()) + 0.01)
    assert abs(float(weight.detach().mean())) < 5 * std / math.sqrt(weight.numel())


@pytest.mark.parametrize("attention", ["deformable", "cross"])
def test_interactions_merge_and_maps(attention: str) -> None:
    model = backbone(attention=attention)
    kinds = set()
    units = [module for module in model.modules() if isinstance(module, DeformableCrossAttention)]
    deformable = {id(part) for unit in units for part in unit.children()}
    for part in (model.interactions, model.merge, model.maps):
        assert part is not None
        for module in part.modules():
            if id(module) in deformable or not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                continue
            kinds.add(type(module).__name__)
            std = 0.02
            if not isinstance(module, nn.Linear):
                std = math.sqrt(2 * module.groups / (math.prod(module.kernel_size) * module.out_channels))
            assert_spread(module.weight, std)
            assert module.bias is None or not module.bias.any()
    assert kinds == {"Linear", "Conv2d", "Upsample"}


def test_deformable_attention_keeps_its_own() -> None:
    attention = backbone().interactions[0].units[0].to_fine.attention
    assert not attention.sampling_offsets.weight.any()
    assert torch.equal(attention.sampling_offsets.bias, ring_offsets(4, 1, 4).flatten())
    assert not attention.attention_weights.weight.any()
    bound = math.sqrt(6 / sum(attention.value.weight.shape))
    assert 0.9 * bound < float(attention.value.weight.detach().abs().max()) <= bound


def test_gammas_are_zero_and_weights_of_the_merge_one() -> None:
    model = backbone()
    for name, parameter in model.named_parameters():
        if name.endswith("_gamma"):
            assert not parameter.any(), name
        if name.startswith("merge.weights."):
            assert parameter == 1, name


def test_upsampling_of_a_single_branch() -> None:
    model = backbone(count=1)
    assert model.maps is not None
    for module in model.maps.modules():
        if isinstance(module, nn.ConvTranspose2d):
            assert_spread(module.weight, math.sqrt(2 / (4 * module.out_channels)))
            assert not module.bias.any()
