import math

import pytest
import torch
from torch import Tensor

from piip.backbone.pyramid import image_pyramid


def sampled(row: Tensor, ratio: float) -> Tensor:
    """Bilinear without antialias along the last axis: position i of the output lies at (i + 0.5) / ratio - 0.5."""
    length = row.shape[-1]
    columns = []
    for index in range(math.floor(length * ratio)):
        position = min(max((index + 0.5) / ratio - 0.5, 0), length - 1)
        left = int(position)
        share = position - left
        columns.append(row[..., left] * (1 - share) + row[..., min(left + 1, length - 1)] * share)
    return torch.stack(columns, dim=-1)


@pytest.mark.parametrize("height", [32, 33, 47])
@pytest.mark.parametrize("width", [40, 61])
@pytest.mark.parametrize("sizes", [(1120, 896, 448), (1568, 1120, 672), (1024, 512)])
def test_the_ratio_sets_the_positions(height: int, width: int, sizes: tuple[int, ...]) -> None:
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    pyramid = image_pyramid(images, sizes)
    assert len(pyramid) == len(sizes)
    for image, size in zip(pyramid[1:], sizes[1:], strict=True):
        ratio = size / sizes[0]
        expected = sampled(sampled(images, ratio).transpose(2, 3), ratio).transpose(2, 3)
        torch.testing.assert_close(image, expected)


def test_branches_of_the_finest_size_see_the_image_itself() -> None:
    images = torch.randn(1, 3, 30, 41)
    pyramid = image_pyramid(images, (64, 64, 32))
    assert pyramid[0] is images
    assert pyramid[1] is images
    assert pyramid[2].shape == (1, 3, 15, 20)


def test_keeps_the_dtype() -> None:
    pyramid = image_pyramid(torch.randn(1, 3, 30, 41, dtype=torch.bfloat16), (64, 48))
    assert pyramid[1].dtype == torch.bfloat16
