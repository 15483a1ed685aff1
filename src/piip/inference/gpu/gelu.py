"""A product and its GELU as one operation, in half precision on CUDA devices: a pass less over the largest tensors.

What NVIDIA's library has for it is the tanh form of GELU, at most 0.0005 from the other. The error of half precision in
the maps of whole models does not show it, see `docs/speed.md`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from piip.inference.gpu.rows import takes
from piip.lean.gpu.sampling import largest_difference, tried, waves
from piip.structures import HALF


class Signature(NamedTuple):
    """What is tried."""

    kind: str
    device: torch.device
    dtype: torch.dtype


def hidden_of(mlp: Mlp, tokens: Tensor) -> Tensor:
    """act(fc1(tokens)) of timm's MLP, [B, N, C] -> [B, N, H]."""
    fc1 = mlp.fc1
    fits = type(fc1) is nn.Linear and fc1.bias is not None and type(mlp.act) is nn.GELU
    if not fits or tokens.dtype not in HALF or not takes(tokens) or not works(tokens.device, tokens.dtype):
        hidden: Tensor = mlp.act(fc1(tokens))
        return hidden
    return _product(tokens.flatten(0, -2), fc1.weight, fc1.bias).unflatten(0, tokens.shape[:-1])


def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch has the operation, and it gives GELU, tried once in a process."""
    return tried(Signature("gelu", device, dtype), device, lambda: _difference(device, dtype))


def _product(rows: Tensor, weight: Tensor, bias: Any) -> Tensor:
    out: Tensor = torch._addmm_activation(bias, rows, weight.t(), use_gelu=True)
    return out


@torch.no_grad()
def _difference(device: torch.device, dtype: torch.dtype) -> float:
    with torch.inference_mode(False):
        rows, weight = (waves(*shape, like=dtype, device=device) for shape in ((64, 32), (128, 32)))
        bias = waves(128, like=dtype, device=device)
        return largest_difference([_product(rows, weight, bias)], [F.gelu(F.linear(rows, weight, bias))])
