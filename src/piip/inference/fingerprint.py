"""Whether a model's weights changed, also where nothing says so (`parameter.data.add_(1)`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

WORD = 8
"""bytes that are taken as one number"""
PIECE = 2**16
"""words that one sum is over: what they need stays in a CPU's cache"""
GPU_PIECE = 2**22
LARGE = 2**13
"""words of a tensor that is looked at alone; smaller ones are joined first, since there are hundreds"""

Fingerprint = tuple[int, ...]


@torch.no_grad()
def fingerprint(tensors: Iterable[Tensor]) -> Fingerprint:
    """Numbers that follow from every bit of `tensors`, in their order.

    The bits are read as 64-bit words, and the words of each piece are added up modulo 2**64, each multiplied by an odd
    random number of its own: a change of one word always changes the sum, and changes of several cancel each other
    with a chance of 2**-32 at most. It costs one pass over the memory, on the device that holds it.
    """
    sums: dict[torch.device, list[Tensor]] = {}
    for words in _joined(tensors):
        size = PIECE if words.device.type == "cpu" else GPU_PIECE
        factors = _factors(size, words.device)
        found = sums.setdefault(words.device, [])
        found.extend((piece * factors[: len(piece)]).sum() for piece in words.split(size))
    return tuple(number for found in sums.values() for number in torch.stack(found).tolist())


def _joined(tensors: Iterable[Tensor]) -> list[Tensor]:
    """All bits as int64 [n]: a row of its own for each large tensor, one for all small ones of a type and device."""
    large: list[Tensor] = []
    small: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        flat = tensor.detach().reshape(-1)
        if flat.nbytes >= LARGE * WORD:
            large.append(flat)
        elif len(flat):
            small.setdefault((flat.dtype, flat.device), []).append(flat)
    return [_words(flat) for flat in (*large, *map(torch.cat, small.values()))]


def _words(flat: Tensor) -> Tensor:
    missing = -flat.nbytes % WORD
    aligned = flat.storage_offset() * flat.element_size() % WORD == 0
    if missing or not aligned:
        flat = F.pad(flat.view(torch.uint8), (0, missing))
    return flat.view(torch.int64)


@lru_cache(maxsize=8)
def _factors(size: int, device: torch.device) -> Tensor:
    odd = torch.randint(-(2**62), 2**62, (size,), generator=torch.Generator().manual_seed(0)) * 2 + 1
    return odd.to(device)
