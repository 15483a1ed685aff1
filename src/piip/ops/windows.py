"""Square attention windows over a grid of tokens, filled up with zeros where they reach over its edge."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from piip.structures import Size


def to_windows(tokens: Tensor, size: Size, window: int) -> Tensor:
    """[B, H*W, C] -> [B * rows * columns, window*window, C], the grid zero-padded right and below to whole windows."""
    batch, _, channels = tokens.shape
    height, width = size
    grid = tokens.reshape(batch, height, width, channels)
    grid = F.pad(grid, (0, 0, 0, -width % window, 0, -height % window))
    rows, columns = grid.shape[1] // window, grid.shape[2] // window
    grid = grid.reshape(batch, rows, window, columns, window, channels).transpose(2, 3)
    return grid.reshape(batch * rows * columns, window * window, channels)


def from_windows(windows: Tensor, size: Size, window: int) -> Tensor:
    """The inverse of `to_windows`; the padding is dropped."""
    height, width = size
    rows, columns = -(-height // window), -(-width // window)
    channels = windows.shape[-1]
    grid = windows.reshape(-1, rows, columns, window, window, channels).transpose(2, 3)
    grid = grid.reshape(-1, rows * window, columns * window, channels)[:, :height, :width]
    return grid.reshape(-1, height * width, channels)


def join_prefix(windows: Tensor, prefix: Tensor) -> Tensor:
    """A copy of each image's prefix tokens [B, K, C] before its windows [B * n, N, C] -> [B * n, K + N, C]."""
    copies = prefix.repeat_interleave(windows.shape[0] // prefix.shape[0], dim=0)
    return torch.cat((copies, windows), dim=1)


def split_prefix(windows: Tensor, prefix_tokens: int, batch: int) -> tuple[Tensor, Tensor]:
    """The inverse of `join_prefix`, where the copies differ their mean: prefix [B, K, C] and windows [B * n, N, C]."""
    copies = windows[:, :prefix_tokens].unflatten(0, (batch, -1))
    return copies.mean(dim=1), windows[:, prefix_tokens:]
