"""3x3 convolutions that take a quarter of the multiply-adds on a CPU, see `inference.cpu.winograd`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from piip.inference.cpu.winograd import convolve, transform_weight
from piip.lean.situation import in_pieces

FEWEST_CHANNELS = 128
"""in and out, below which there is little to gain (`benchmarks/winograd.py`)"""
MOST_PAIRS = 1024**2
"""of channels: the transformed weights are four times as large as the weights, here 151 MB"""


class FewerProducts(nn.Conv2d):
    """A convolution for inference: where `in_pieces` allows it with transformed weights, elsewhere as ever."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Shares the parameters of `conv`."""
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.transformed = transform_weight(conv.weight)
        """no buffer: of use on a CPU only, and so it stays there"""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, H, W]."""
        return convolve(x, self.transformed, self.bias) if self.applies(x) else super().forward(x)

    def applies(self, x: Tensor) -> bool:
        """Whether the transformed weights are for `x`."""
        counting = x.device.type == "meta" == self.transformed.device.type
        return counting or (x.dtype == self.transformed.dtype and in_pieces(x, self.transformed))


def fold_convolutions(module: nn.Module) -> None:
    """All 3x3 convolutions in `module` that gain by it."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if gains(child):
                setattr(parent, name, FewerProducts(child))  # type: ignore[arg-type]


def gains(layer: nn.Module) -> bool:
    """Whether `layer` is a convolution that `FewerProducts` can be made of, and should."""
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding in ((1, 1), "same")
        and layer.padding_mode == "zeros"
        and layer.groups == 1
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type in ("cpu", "meta")
        and min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS
        and layer.in_channels * layer.out_channels <= MOST_PAIRS
    )
