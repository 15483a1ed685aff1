"""The FPN in the memory layout in which CPUs convolve fastest and everything after it reads."""

from __future__ import annotations

import torch
from torch import Tensor

from piip.heads.mask_rcnn.fpn import FPN


class ChannelsLastFPN(FPN):
    """The same levels, in memory channels last."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """See `FPN`."""
        return super().forward([feature.contiguous(memory_format=torch.channels_last) for feature in features])
