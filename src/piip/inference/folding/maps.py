"""Where the feature maps meet the head: transposed convolutions and the 1x1 convolutions that read them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from piip.inference.folding.affine import precise, replace


def fold_laterals(maps: Any, laterals: nn.ModuleList) -> None:
    """A map made by a transposed convolution and read by one 1x1 convolution alone: one transposed convolution.

    768 -> 768 -> 256 channels become 768 -> 256. The lateral is an Identity afterwards; the map has its channels.
    """
    levels = list(maps.levels)[-len(maps.strides) :]
    for index, (level, lateral) in enumerate(zip(levels, laterals, strict=False)):
        up = level[-1] if isinstance(level, nn.Sequential) else level
        if isinstance(up, nn.ConvTranspose2d) and isinstance(lateral, nn.Conv2d) and lateral.kernel_size == (1, 1):
            _compose(up, lateral)
            laterals[index] = nn.Identity()


def drop_unused_levels(maps: Any) -> None:
    """Levels that released models hold but do not use."""
    for index in range(len(maps.levels) - len(maps.strides)):
        maps.levels[index] = nn.Identity()


def _compose(up: nn.ConvTranspose2d, lateral: nn.Conv2d) -> None:
    channels = precise(lateral.weight)[:, :, 0, 0]  # [O, M]
    bias = None if up.bias is None else channels @ precise(up.bias)
    if lateral.bias is not None:
        bias = precise(lateral.bias) if bias is None else bias + precise(lateral.bias)
    replace(up, torch.einsum("imhw,om->iohw", precise(up.weight), channels), bias)
    up.out_channels = lateral.out_channels
