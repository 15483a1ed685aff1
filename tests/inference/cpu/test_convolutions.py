"""Which convolutions are replaced, and when the replacement works as the convolution it was."""

import copy

import pytest
import torch
from torch import nn

from piip.inference.cpu.convolutions import FewerProducts, fold_convolutions, gains

WIDE = {"in_channels": 128, "out_channels": 128, "kernel_size": 3, "padding": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"padding": 0},
        {"padding_mode": "reflect"},
        {"in_channels": 64},
        {"in_channels": 2048, "out_channels": 2048},
        {"dtype": torch.bfloat16},
    ],
)
def test_other_convolutions_stay(change: dict[str, object]) -> None:
    with torch.device("meta"):
        assert gains(nn.Conv2d(**WIDE))
        assert not gains(nn.Conv2d(**WIDE | change))


def test_outputs_are_equal_wherever_it_runs() -> None:
    conv, x = nn.Conv2d(**WIDE), torch.randn(1, 128, 10, 14)
    parent = nn.Sequential(copy.deepcopy(conv), nn.ReLU())
    fold_convolutions(parent)
    fewer = parent[0]
    assert isinstance(fewer, FewerProducts)
    assert fewer.state_dict().keys() == conv.state_dict().keys()
    calls: list[int] = []
    fewer.transformed = Counted(fewer.transformed, calls)
    with torch.no_grad():
        expected = conv(x)
        torch.testing.assert_close(fewer(x), expected, atol=1e-5, rtol=1e-4)
        assert calls
        calls.clear()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert fewer(x).dtype == torch.bfloat16
    assert torch.equal(fewer(x), conv(x))  # with autograd
    fewer.double()
    with torch.no_grad():
        assert torch.equal(fewer(x.double()), conv.double()(x.double()))
    assert not calls


def Counted(tensor: torch.Tensor, calls: list[int]) -> torch.Tensor:  # noqa: N802
    """A tensor that counts matrix products with it."""

    class Tensor(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if function is torch.bmm:
                calls.append(1)
            return super().__torch_function__(function, types, args, kwargs)

    return tensor.as_subclass(Tensor)
