"""From feature maps to one map of class logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from piip import config
from piip.backbone.merge import resize
from piip.heads.upernet.batch_norm import BatchNorm
from piip.structures import size_of


class UperNetDecoder(nn.Module):
    """Pyramid pooling on the coarsest map, top-down additions, and the fusion of all levels."""

    def __init__(self, head: config.UperNet, in_channels: Sequence[int], classes: int) -> None:
        super().__init__()
        width, (*finer, coarsest) = head.channels, in_channels
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), ConvNormReLU(coarsest, width)) for bins in head.pool_bins
        )
        self.pooled = ConvNormReLU(coarsest + len(head.pool_bins) * width, width, kernel=3)
        self.laterals = nn.ModuleList(ConvNormReLU(channels, width) for channels in finer)
        self.smooth = nn.ModuleList(ConvNormReLU(width, width, kernel=3) for _ in finer)
        self.fuse = ConvNormReLU(len(in_channels) * width, width, kernel=3)
        self.classify = classifier(width, classes, head.dropout)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps, finest first -> logits [B, K, h, w] at the size of the finest."""
        *finer, coarsest = features
        size = size_of(coarsest)
        context = [coarsest, *(resize(pool(coarsest), size) for pool in self.pools)]
        levels = [lateral(one) for lateral, one in zip(self.laterals, finer, strict=True)]
        levels.append(self.pooled(torch.cat(context, dim=1)))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], size_of(levels[i - 1]))
        smoothed = [smooth(level) for smooth, level in zip(self.smooth, levels[:-1], strict=True)]
        finest = size_of(levels[0])
        fused = self.fuse(torch.cat([resize(level, finest) for level in (*smoothed, levels[-1])], dim=1))
        logits: Tensor = self.classify(fused)
        return logits


class ConvNormReLU(nn.Sequential):
    """A convolution that keeps the size, BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(conv, BatchNorm(outputs), nn.ReLU(inplace=True))


def classifier(channels: int, classes: int, dropout: float) -> nn.Sequential:
    """[B, C, h, w] -> class logits [B, K, h, w]."""
    last = nn.Conv2d(channels, classes, kernel_size=1)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Dropout2d(dropout), last)
