"""Which of several equal paths a computation takes: the plain one on request, one in small pieces on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIECE = 1024
"""tokens at a time in inference on a CPU: what a piece needs stays in the cache, and memory is used over and over"""


class _Chosen:
    plain = False


@contextmanager
def plain() -> Iterator[None]:
    """Within this context every operation takes its plain path: definitions written out, nothing fused or reused.

    The twin that fast paths are tested and measured against. It holds for all threads of the process.
    """
    before, _Chosen.plain = _Chosen.plain, True
    try:
        yield
    finally:
        _Chosen.plain = before


def is_plain() -> bool:
    """Whether this is within `plain()`."""
    return _Chosen.plain


def in_pieces(*tensors: Tensor) -> bool:
    """Whether to work in pieces of about `PIECE` tokens, in place where the memory is the caller's own.

    So on a CPU without autograd. Compilers, exporters and counters (on the meta device) get whole tensors instead,
    and so does autocast, whose results change their dtype from one operation to the next.
    """
    return (
        not _Chosen.plain
        and all(tensor.device.type == "cpu" for tensor in tensors)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def gelu(hidden: Tensor, approximate: str = "none") -> Tensor:
    """GELU of a tensor that is the caller's own and not needed any more: in place where `in_pieces` allows it."""
    if in_pieces(hidden):
        return torch.ops.aten.gelu_(hidden, approximate=approximate)
    return F.gelu(hidden, approximate=approximate)


def add_scaled(x: Tensor, out: Tensor, gamma: Tensor) -> Tensor:
    """x + gamma * out for an `x` that is the caller's own: in place where `in_pieces` allows it."""
    return x.addcmul_(out, gamma) if in_pieces(x, out) else x + gamma * out


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
    if is_plain() or half or type(layer) is not nn.Linear:
        return layer(x) * gamma
    return F.linear(x, layer.weight * gamma[:, None], None if layer.bias is None else layer.bias * gamma)
