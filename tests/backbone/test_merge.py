import pytest
import torch
import torch.nn.functional as F

from piip.backbone.merge import ConvMerge, resize, to_map
from piip.structures import BranchState


def states(*widths_and_sizes: tuple[int, tuple[int, int]]) -> list[BranchState]:
    return [BranchState(torch.randn(2, h * w, width), (h, w)) for width, (h, w) in widths_and_sizes]


def test_tokens_become_a_map_row_by_row() -> None:
    tokens = torch.arange(6.0).reshape(1, 6, 1)
    assert to_map(BranchState(tokens, (2, 3)))[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


@torch.no_grad()
def test_merged_is_the_weighted_sum_at_the_finest_grid() -> None:
    branches = states((32, (7, 9)), (64, (5, 6)), (96, (2, 3)))
    merge = ConvMerge([32, 64, 96])
    for weight, value in zip(merge.weights, (0.5, -2.0, 3.0), strict=True):
        weight.fill_(value)
    expected = torch.zeros(2, 96, 7, 9)
    for state, projection, weight in zip(branches, merge.projections, (0.5, -2.0, 3.0), strict=True):
        hidden = to_map(state)
        for first in (0, 3):
            convolution, norm = projection[first], projection[first + 1]
            hidden = F.conv2d(hidden, convolution.weight, padding=1)
            hidden = F.relu(F.group_norm(hidden, 32, norm.weight, norm.bias))
        expected += weight * F.interpolate(hidden, size=(7, 9), mode="bilinear", align_corners=False)
    torch.testing.assert_close(merge(branches), expected, atol=1e-5, rtol=1e-4)


def test_weights_begin_at_one_and_are_learned() -> None:
    merge = ConvMerge([32, 64])
    assert [weight.item() for weight in merge.weights] == [1, 1]
    merge(states((32, (4, 4)), (64, (2, 2)))).sum().backward()
    assert all(parameter.grad is not None for parameter in merge.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_resize_is_done_in_float32(dtype: torch.dtype) -> None:
    image = torch.randn(1, 2, 5, 6).to(dtype)
    resized = resize(image, (13, 17))
    assert resized.dtype == dtype
    expected = F.interpolate(image.float(), size=(13, 17), mode="bilinear", align_corners=False)
    assert torch.equal(resized, expected.to(dtype))
    assert resize(image, (5, 6)) is image


def test_double_precision_is_kept() -> None:
    image = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    expected = F.interpolate(image, size=(13, 17), mode="bilinear", align_corners=False)
    assert torch.equal(resize(image, (13, 17)), expected)
