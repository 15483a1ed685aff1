"""What stands for the paper's modules on a GPU: the same numbers, here on a CPU."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from piip.backbone.feature_maps import Upsample, UpsampleTwice
from piip.backbone.merge import ConvMerge
from piip.inference.gpu.group_norm import group_norm
from piip.inference.gpu.maps import ConvMergeChannelsLast, UpsampleTwiceChannelsLast
from piip.lean.maps import LeanUpsample, LeanUpsampleTwice
from piip.structures import BranchState


@pytest.mark.parametrize("affine", [True, False])
def test_group_norm_of_pixels(affine: bool) -> None:
    norm = nn.GroupNorm(4, 24, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    pixels = torch.randn(3, 50, 24) + 5 * torch.randn(24)
    with torch.no_grad():
        expected = norm(pixels.transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(group_norm(norm, pixels), expected, atol=2e-5, rtol=0)


def test_the_merge() -> None:
    torch.manual_seed(0)
    merge = ConvMerge([32, 64]).bfloat16().eval()
    nn.init.normal_(merge.weights[1])
    states = [BranchState(torch.randn(2, h * w, c).bfloat16(), (h, w)) for h, w, c in ((6, 5, 32), (4, 3, 64))]
    with torch.no_grad():
        expected = merge(states)
        merge.__class__ = ConvMergeChannelsLast
        found = merge(states)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).float().abs().max() < 0.03 * expected.float().std()


@pytest.mark.parametrize("norm", ["groupnorm", "layernorm"])
def test_upsampling(norm: str) -> None:
    torch.manual_seed(0)
    maps = UpsampleTwice(32, norm).bfloat16().eval()
    x = torch.randn(2, 32, 3, 5).bfloat16()
    with torch.no_grad():
        expected = maps(x)
        maps.__class__ = UpsampleTwiceChannelsLast
        maps[0].__class__ = maps[3].__class__ = LeanUpsample
        found = maps(x)
    assert found.shape == expected.shape
    assert (found - expected).float().abs().max() < 0.05 * expected.float().std()


class Names(TorchDispatchMode):
    """Operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.add(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("twice", [False, True])
def test_maps_in_any_memory_layout_are_upsampled_by_one_product(twice: bool) -> None:
    module: Any = UpsampleTwice(32, "layernorm") if twice else Upsample(32, 16)
    x = torch.randn(2, 32, 3, 5)
    with torch.no_grad(), Names() as names:
        expected = module(x)
        for part in module.modules():
            part.__class__ = {Upsample: LeanUpsample, UpsampleTwice: LeanUpsampleTwice}.get(type(part), type(part))
        names.found.clear()
        torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
    assert "addmm.default" in names.found
    assert "bmm.default" not in names.found
