import pytest
import torch
import torch.nn.functional as F

from piip.inference.cpu.winograd import REACH, TILES, convolve, transform_weight


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 3), (2, 13), (17, 70)])
@pytest.mark.parametrize(("channels", "out"), [(1, 1), (3, 5), (16, 8)])
def test_it_is_the_convolution(channels: int, out: int, size: tuple[int, int], bias: bool) -> None:
    x, weight = torch.randn(2, channels, *size), torch.randn(out, channels, 3, 3)
    shift = torch.randn(out) if bias else None
    found = convolve(x, transform_weight(weight), shift)
    assert found.shape == (2, out, *size)
    torch.testing.assert_close(found, F.conv2d(x, weight, shift, padding=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(300, 2, 14, 14), (3, 2, 70, 130), (1, 2, 4, 4 * TILES + 4)])
def test_many_small_images_and_large_ones_in_pieces(shape: tuple[int, ...]) -> None:
    x, weight = torch.randn(shape), torch.randn(3, 2, 3, 3)
    for layout in (x, x.contiguous(memory_format=torch.channels_last)):
        found = convolve(layout, transform_weight(weight), None)
        torch.testing.assert_close(found, F.conv2d(x, weight, padding=1), atol=1e-4, rtol=1e-4)


def test_it_is_about_as_exact_as_a_direct_convolution() -> None:
    x, weight = torch.randn(1, 256, 24, 24).relu(), torch.randn(64, 256, 3, 3) / 48
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (convolve(x, transform_weight(weight), None) - exact).abs().max() / exact.std()
    direct = (F.conv2d(x, weight, padding=1) - exact).abs().max() / exact.std()
    assert error < 3e-5
    assert error < 10 * direct


def test_in_float64_it_is_exact() -> None:
    x, weight = torch.randn(1, 4, 9, 9, dtype=torch.float64), torch.randn(4, 4, 3, 3, dtype=torch.float64)
    transformed = transform_weight(weight)
    assert transformed.shape == (REACH**2, 4, 4)
    torch.testing.assert_close(convolve(x, transformed, None), F.conv2d(x, weight, padding=1), atol=1e-12, rtol=0)
