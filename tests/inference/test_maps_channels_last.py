"""What stands for the paper's modules on a GPU: the same numbers, here on a CPU."""

import pytest
import torch
from tests import tiny
from torch import nn

from piip import config
from piip.backbone.feature_maps import UpsampleTwice
from piip.backbone.interaction import DeformableCrossAttention
from piip.backbone.merge import ConvMerge
from piip.inference import places
from piip.inference.maps_channels_last import ConvMergeChannelsLast, UpsampleTwiceChannelsLast, group_norm
from piip.inference.places import PlacedCrossAttention
from piip.lean.maps import LeanUpsample
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


@pytest.mark.parametrize("framed", [True, False])
def test_positions_of_sampling(framed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_kept", {})
    attention = DeformableCrossAttention(32, 64, config.Interaction(**tiny.interaction().model_dump())).eval()
    query, source = torch.randn(2, 12, 32), torch.randn(2, 30, 64)
    frame = torch.tensor([[[0.5, 0.6], [0.2, 0.1]]]).repeat(2, 1, 1) if framed else None
    with torch.inference_mode():
        expected = attention(query, (3, 4), source, (5, 6), frame)
        attention.__class__ = PlacedCrossAttention
        for _ in range(2):
            found = attention(query, (3, 4), source, (5, 6), frame)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert list(places._kept) == [(3, 4, 5, 6, torch.device("cpu"))]
    attention(query, (3, 4), source, (5, 6), frame).sum().backward()
    assert attention.sampling_offsets.weight.grad is not None
