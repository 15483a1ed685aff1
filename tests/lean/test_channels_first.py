import pytest
import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from piip.inference import choose
from piip.lean.convolutions import ChannelsFirstConv2d
from piip.lean.embedding import LeanPatchEmbed

CASES = {
    "3x3": ({"kernel_size": 3, "padding": 1}, True),
    "5x3": ({"kernel_size": (5, 3)}, True),
    "1x1": ({"kernel_size": 1}, False),
    "depthwise": ({"kernel_size": 3, "groups": 4}, False),
    "stride 2": ({"kernel_size": 3, "stride": 2}, False),
}


def twin_of(options: dict[str, int]) -> tuple[nn.Conv2d, list[bool]]:
    """A convolution as it trains on a CPU, and whether each input that torch is given lies channels first."""
    conv, given = nn.Conv2d(4, 4, **options), []  # type: ignore[arg-type, var-annotated]
    choose(conv, "train")
    assert type(conv) is ChannelsFirstConv2d
    plain = conv._conv_forward

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        given.append(x.is_contiguous())
        return plain(x, weight, bias)

    conv._conv_forward = noted  # type: ignore[method-assign]
    return conv, given


@pytest.mark.parametrize("case", CASES)
def test_the_same_numbers_and_gradients(case: str) -> None:
    options, copied = CASES[case]
    conv, given = twin_of(options)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 9, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    plain = nn.functional.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    out = conv(x)
    assert given == [copied]
    torch.testing.assert_close(out, plain)
    toward, wanted = torch.randn_like(plain), (x, conv.weight, conv.bias)
    expected, actual = (torch.autograd.grad(each, wanted, toward) for each in (plain, out))
    torch.testing.assert_close(actual, expected)


def test_without_a_gradient_of_the_weight_nothing_is_copied() -> None:
    conv, given = twin_of({"kernel_size": 3})
    x = torch.randn(1, 4, 9, 7).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        conv(x)
    conv.weight.requires_grad_(False)
    conv(x)
    assert given == [False, False]


def test_patches_stay_a_product() -> None:
    embed, images = PatchEmbed(32, 8, 3, 16).train(), torch.randn(2, 3, 32, 32)
    expected = embed(images)
    choose(embed, "train")
    assert (type(embed), type(embed.proj)) == (LeanPatchEmbed, ChannelsFirstConv2d)
    embed.proj.forward = None  # type: ignore[method-assign, assignment]
    torch.testing.assert_close(embed(images), expected)
