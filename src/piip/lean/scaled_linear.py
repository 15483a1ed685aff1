"""A linear layer and the LayerScale behind it in training: the weights are scaled, not the result."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scaled_linear(layer: nn.Module, x: Tensor, gamma: Tensor | None) -> Tensor:
    """gamma * layer(x), for a Linear with the weights scaled: a result less to write, and to keep for the backward.

    In half precision a gamma near 0 would take the weights below the smallest number, so there it is the result that
    is scaled.
    """
    if gamma is None:
        whole: Tensor = layer(x)
        return whole
    device = x.device.type  # torch refuses to answer for autocast on the meta device
    half = x.dtype not in (torch.float32, torch.float64) or (device != "meta" and torch.is_autocast_enabled(device))
    if half or type(layer) is not nn.Linear:
        return layer(x) * gamma
    return F.linear(x, layer.weight * gamma[:, None], None if layer.bias is None else layer.bias * gamma)
