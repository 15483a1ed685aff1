"""What stands for a norm and for a product with its GELU, against PyTorch's own operations. See `gpu.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.layers import Mlp
from torch import nn

from piip.inference.gpu.gelu import hidden_of
from piip.inference.gpu.rows import added_and_normalised, normalised, rows_are_normalised

Row = dict[str, Any]

SHAPES = ((4900, 192), (3136, 384), (784, 768))
"""tokens and channels of the branches of TSB 1120/896/448"""


def steps(milliseconds: Callable[[Callable[[], Any]], float], device: torch.device) -> Iterator[Row]:
    """A row for each branch, at batch 8 in bfloat16; `milliseconds` measures a function."""
    for tokens, channels in SHAPES:
        with torch.inference_mode():
            ways = ways_for(tokens, channels, device)
            times = {f"{name}_ms": round(milliseconds(way), 4) for name, way in ways.items()}
        yield {"what": "steps", "tokens": tokens, "channels": channels, **times}


def ways_for(tokens: int, channels: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Pairs of PyTorch's operations and what stands for them, where that works."""
    x, added = (torch.randn(8, tokens, channels, device=device, dtype=torch.bfloat16) for _ in range(2))
    mlp, norm = Mlp(channels, 4 * channels).to(x), nn.LayerNorm(channels).to(x)
    ways: dict[str, Callable[[], Any]] = {
        "norm": lambda: norm(x),
        "sum_and_norm": lambda: norm(x + added),
        "product_and_gelu": lambda: mlp.act(mlp.fc1(x)),
        "product_with_gelu": lambda: hidden_of(mlp, x),
    }
    if rows_are_normalised(x, norm):
        ways["norm_kernel"] = lambda: normalised(x, norm)
        ways["sum_and_norm_kernel"] = lambda: added_and_normalised(x, added, norm)
    return ways
