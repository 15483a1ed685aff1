"""What cannot be known before a call: whether gradients are wanted, under autocast or not, run, compiled or traced."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 1024
"""tokens at a time on a CPU: what a piece needs stays in the cache, and memory is used over and over"""


def pieces(length: int) -> list[slice]:
    """Of about `PIECE` tokens."""
    return [slice(start, start + PIECE) for start in range(0, length, PIECE)]


def recomputes(tokens: Tensor) -> bool:
    """Whether training keeps less and computes it again: with gradients, on a CPU, in float32 or float64."""
    return torch.is_grad_enabled() and tokens.dtype in (torch.float32, torch.float64) and _is_plain_cpu(tokens)


def in_pieces(*tensors: Tensor) -> bool:
    """Whether to work in pieces of about `PIECE` tokens, in place where the memory is the caller's own.

    So on a CPU without autograd. Compilers, exporters and counters (on the meta device) get whole tensors instead,
    and so does autocast, whose results change their dtype from one operation to the next.
    """
    return not torch.is_grad_enabled() and _is_plain_cpu(*tensors)


def _is_plain_cpu(*tensors: Tensor) -> bool:
    return (
        all(tensor.device.type == "cpu" for tensor in tensors)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def gelu(hidden: Tensor, approximate: str = "none") -> Tensor:
    """GELU of a tensor that is the caller's own and not needed any more: in place where `in_pieces` allows it."""
    if in_pieces(hidden):
        return torch.ops.aten.gelu_(hidden, approximate=approximate)
    return F.gelu(hidden, approximate=approximate)
