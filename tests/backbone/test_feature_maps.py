import pytest
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d

from piip import config
from piip.backbone.feature_maps import FeatureMaps


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (5, 7), (33, 2)])
def test_four_maps_finest_first(size: tuple[int, int]) -> None:
    height, width = size
    merged = torch.randn(2, 32, height, width)
    maps = FeatureMaps(32, config.FeatureMaps())(merged)
    grids = [tuple(level.shape) for level in maps]
    assert grids == [
        (2, 32, height * 4, width * 4),
        (2, 32, height * 2, width * 2),
        (2, 32, height, width),
        (2, 32, height // 2, width // 2),
    ]
    assert maps[2] is merged
    torch.testing.assert_close(maps[3], F.max_pool2d(merged, 2))


@torch.no_grad()
def test_maps_by_hand() -> None:
    module, merged = FeatureMaps(32, config.FeatureMaps()), torch.randn(1, 32, 3, 4)
    first, norm, _gelu, second = module.levels[0]
    torch.nn.init.normal_(norm.weight)
    hidden = F.conv_transpose2d(merged, first.weight, first.bias, stride=2)
    hidden = F.gelu(F.group_norm(hidden, 32, norm.weight, norm.bias))
    expected = F.conv_transpose2d(hidden, second.weight, second.bias, stride=2)
    maps = module(merged)
    torch.testing.assert_close(maps[0], expected, atol=1e-5, rtol=1e-4)
    up = module.levels[1]
    torch.testing.assert_close(maps[1], F.conv_transpose2d(merged, up.weight, up.bias, stride=2), atol=1e-5, rtol=1e-4)


def test_the_norm_of_single_branch_baselines_is_over_channels() -> None:
    module = FeatureMaps(40, config.FeatureMaps(norm="layernorm"))
    assert isinstance(module.levels[0][1], LayerNorm2d)
    assert module.levels[0][1].eps == 1e-6
    assert len(module(torch.randn(1, 40, 3, 3))) == 4


def test_three_maps_hold_an_unused_level_that_is_not_trained() -> None:
    module = FeatureMaps(32, config.FeatureMaps(strides=(8, 16, 32)))
    maps = module(torch.randn(1, 32, 4, 4))
    assert [level.shape[-1] for level in maps] == [8, 4, 2]
    sum(level.sum() for level in maps).backward()
    for name, parameter in module.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == (not name.startswith("levels.0")), name
    slim = FeatureMaps(32, config.FeatureMaps(strides=(8, 16, 32), unused_level=False))
    assert not any(name.startswith("levels.0") for name, _ in slim.named_parameters())


def test_two_maps_hold_nothing_finer() -> None:
    module = FeatureMaps(32, config.FeatureMaps(strides=(16, 32)))
    assert not list(module.parameters())
    merged = torch.randn(1, 32, 4, 6)
    same, half = module(merged)
    assert same is merged
    torch.testing.assert_close(half, F.max_pool2d(merged, 2))


@torch.no_grad()
@pytest.mark.parametrize("size", [(2, 2), (5, 7), (33, 2)])
def test_halving_is_max_pooling(size: tuple[int, int]) -> None:
    module, merged = FeatureMaps(32, config.FeatureMaps(strides=(16, 32))), torch.randn(2, 32, *size)
    assert torch.equal(module(merged)[1], F.max_pool2d(merged, 2))


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)])
def test_a_grid_that_cannot_be_halved_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 32 pixels in both directions"):
        FeatureMaps(32, config.FeatureMaps())(torch.randn(1, 32, *size))
