"""Small tensors of known numbers, made where they are needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def constants(values: Sequence[float], device: torch.device | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """[n]: `values` on `device`.

    `torch.tensor` would copy them from the host, which on a GPU waits for everything that was asked for before; a
    forward pass with dozens of such copies could not run ahead. Filling does not wait.
    """
    return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in values])
