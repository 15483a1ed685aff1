"""The contract of what is exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """Padded images to named tensors, by operations that runtimes know."""

    inputs: ClassVar[tuple[str, ...]] = ("images",)
    """names of what `forward` takes"""
    outputs: tuple[str, ...]
    """names of what it gives"""
    any_batch: ClassVar[bool] = True
    """whether one graph can take any number of images"""

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs of images [B, 3, H, W], normalised and padded."""

    def example(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Inputs to trace with."""
        images = torch.zeros(batch, 3, height, width)
        sizes = torch.tensor([[height, width]], dtype=torch.float32).repeat(batch, 1)
        return (images, sizes)[: len(self.inputs)]


class HalfStored(Network):
    """A network whose weights are stored in half precision, and made float32 when it runs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.half()
        self.outputs = network.outputs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As the network's own."""
        stored = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        weights = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
        found: tuple[Tensor, ...] = torch.func.functional_call(self.network, weights, inputs)
        return found
