"""Convolutions in training on a CPU read their input in the memory layout in which their weight's gradient is fast.

Where the input lies channels last, oneDNN's takes 2 to 4 times as long (AVX2, maps of 64 x 64 cells and more), which
made Mask R-CNN's neck and RPN train at less than half the rate that they can. Their other products do not care.
"""

from __future__ import annotations

from torch import Tensor, nn

from piip.lean.situation import recomputes


class ChannelsFirstConv2d(nn.Conv2d):
    """The same convolution of an input that is copied if it lies otherwise."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, *, *]."""
        overlaps = self.groups == 1 and self.stride == (1, 1) and max(self.kernel_size) > 1
        if overlaps and self.weight.requires_grad and recomputes(input):
            input = input.contiguous()
        return super().forward(input)


CONVOLUTIONS = (nn.Conv2d, ChannelsFirstConv2d)
"""those that are nothing but a convolution"""
