"""The processes that share a training or an evaluation: who this one is, and what each asks of the others.

Alone, everything here is a plain answer. Among several (torch.distributed is at work), what asks the others is one
collective, which all of them must reach.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

_counts = True
"""whether what this process counts is part of the sums; see `uncounted`"""


def count() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if _at_work() else 1


def rank() -> int:
    """Which of them this is; 0 is the main one, which writes."""
    return dist.get_rank() if _at_work() else 0


def launched() -> int:
    """How many processes a launcher started, by its environment variables: also before they know each other."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main() -> bool:
    """Whether this is the process that speaks, by the same."""
    return int(os.environ.get("RANK") or 0) == 0


@contextmanager
def uncounted() -> Iterator[None]:
    """Inside, this process takes part in the collectives but adds nothing: its images are others' too."""
    global _counts  # noqa: PLW0603 - a setting of the process, as the collectives are
    _counts = False
    try:
        yield
    finally:
        _counts = True


def counted(value: Tensor) -> Tensor:
    """`value`, or zeros within `uncounted`; still part of the graph, so that the way back has the same collectives."""
    return value if _counts else 0 * value


def mean_count(number: int, device: torch.device, least: int = 0) -> float | Tensor:
    """What a sum over this process's part is divided by, so that the mean over the processes is that of one batch.

    All `number`s together, at least `least`, over the number of processes: `number` itself in a process alone.
    """
    if count() == 1:
        return max(number, least)
    total = counted(torch.tensor(float(number), device=device))
    dist.all_reduce(total)
    return total.clamp(min=least) / count()


def largest(numbers: Sequence[int], device: torch.device) -> list[int]:
    """The largest of each number over the processes."""
    if count() == 1:
        return list(numbers)
    most = torch.tensor(list(numbers), device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return [int(value) for value in most.tolist()]


def gathered(mine: Any) -> list[Any]:
    """The objects of all processes in the order of these, on the main one; nothing on the others."""
    if count() == 1:
        return [mine]
    found: list[Any] | None = [None] * count() if rank() == 0 else None
    dist.gather_object(mine, found)
    return found or []


def from_main(mine: Any) -> Any:
    """The main process's object, on every one."""
    if count() == 1:
        return mine
    shared = [mine]
    dist.broadcast_object_list(shared)
    return shared[0]


def _at_work() -> bool:
    return dist.is_available() and dist.is_initialized()
