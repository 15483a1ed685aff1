"""What is done in pieces for large images gives what is done at once."""

import copy

import pytest
import torch
from tests import tiny
from torch import Tensor, nn

from piip import zoo
from piip.backbone.feature_maps import UpsampleTwice
from piip.backbone.merge import ConvMerge, LightMerge
from piip.heads.mask_rcnn.fpn import FPN
from piip.heads.mask_rcnn.rpn import RPN
from piip.inference import choose, fuse
from piip.inference.cpu import strips
from piip.inference.cpu.convolutions import FewerProducts
from piip.inference.cpu.group_norm import Moments, normalise_in_place
from piip.model import PIIPModel
from piip.structures import BranchState


@pytest.fixture(autouse=True)
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of 8 rows in the maps of these tests, instead of 32 in those of a large photo."""
    monkeypatch.setattr(strips, "CELLS", 2 * 30 * 8)


def predicting(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module)
    choose(twin, "predict")
    assert type(twin) is not type(module)
    return twin


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5 * max(1.0, other.abs().max().item()), rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("height", [5, 16, 43])
@pytest.mark.parametrize("fewer_products", [False, True])
def test_a_convolution_in_strips(height: int, fewer_products: bool) -> None:
    conv: nn.Conv2d = nn.Conv2d(6, 5, 3, padding=1)
    x = torch.randn(2, 6, height, 30).contiguous(memory_format=torch.channels_last)
    if fewer_products:
        conv = FewerProducts(conv)
    parts = list(strips.convolved(conv, strips.rows_of(x), (height, 30), 2))
    assert len(parts) == -(-height // 8)
    close(torch.cat([part for _, part in parts], dim=2), conv(x))
    close(strips.whole(conv, strips.rows_of(x), (height, 30), 2), conv(x))


@torch.no_grad()
@pytest.mark.parametrize("finest", [(44, 30), (45, 31)])
def test_the_neck(finest: tuple[int, int]) -> None:
    fpn = FPN((6, 6, 6), 8)
    fpn.laterals[1] = nn.Identity()  # as in a folded copy
    shapes = (finest, (22, 15), (11, 7))
    features = [torch.randn(2, width, *shape) for width, shape in zip((6, 8, 6), shapes, strict=True)]
    before = [feature.clone() for feature in features]
    for one, other in zip(predicting(fpn)(features), fpn(features), strict=True):
        close(one, other)
    assert all(torch.equal(one, other) for one, other in zip(features, before, strict=True))


@torch.no_grad()
def test_proposals() -> None:
    rpn = RPN(tiny.model().head)  # type: ignore[arg-type]
    levels = [torch.randn(2, 16, *size) for size in ((43, 30), (6, 5))]
    before = [level.clone() for level in levels]
    found, expected = predicting(rpn)(levels), rpn(levels)
    for ones, others in zip(found, expected, strict=True):
        for one, other in zip(ones, others, strict=True):
            assert one.shape == other.shape
            close(one, other)
    assert all(torch.equal(one, other) for one, other in zip(levels, before, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("kind", [ConvMerge, LightMerge])
def test_the_merge(kind: type[ConvMerge | LightMerge]) -> None:
    merge = kind([32, 64, 96])
    for parameter in merge.parameters():
        parameter.normal_(1.0, 0.2) if parameter.ndim < 2 else None
    sizes = ((44, 30), (20, 13), (10, 6))
    states = [BranchState(torch.randn(2, h * w, 32 * (i + 1)), (h, w)) for i, (h, w) in enumerate(sizes)]
    before = [state.tokens.clone() for state in states]
    close(predicting(merge)(states), merge(states))
    assert all(torch.equal(state.tokens, tokens) for state, tokens in zip(states, before, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("norm", ["groupnorm", "layernorm"])
def test_both_upsamplings(norm: str) -> None:
    up = UpsampleTwice(32, norm)
    up[1].weight.normal_(1.0, 0.2)  # type: ignore[operator]
    x = torch.randn(2, 32, 23, 31)
    before = x.clone()
    close(predicting(up)(x), up(x))
    assert torch.equal(x, before)


@torch.no_grad()
def test_a_group_norm_of_pixels_far_from_zero() -> None:
    norm, x = nn.GroupNorm(2, 8), torch.randn(2, 8, 40, 60) * 0.1 + torch.randn(8, 1, 1) * 30 + 1000
    exact = nn.GroupNorm(2, 8).double()(x.double()).float()
    normalise_in_place(norm, x)
    torch.testing.assert_close(x, exact, atol=1e-4, rtol=0)


def test_moments_do_not_depend_on_the_pieces() -> None:
    x, norm = torch.randn(60, 8), nn.GroupNorm(4, 8)
    results = []
    for count in (60, 7):
        moments = Moments()
        for piece in x.split(count):
            moments.add(piece)
        results.append(moments.affine(norm))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_nano_for_large_images_attends_in_windows_at_any_size() -> None:
    described = zoo.entry("piip_nano_large_mask_rcnn").config()
    assert all(None not in branch.windows for branch in described.backbone.branches)
    model = PIIPModel(described).eval()
    for name, parameter in model.named_parameters():
        if "relative_position_bias_table" in name:
            parameter.normal_()
    images = torch.randn(1, 3, 160, 352)
    for one, other in zip(fuse(model, share=True).backbone(images), model.backbone(images), strict=True):
        if one.shape == other.shape:  # the finest map of a folded copy is the neck's
            torch.testing.assert_close(one, other, atol=1e-4 * other.std().item(), rtol=0)
