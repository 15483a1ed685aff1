"""The processes that share a training or an evaluation: who this one is, and what each asks of the others.

Alone, everything here is a plain answer. Among several (torch.distributed is at work), what asks the others is one
collective, which all of them must reach.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

Part = TypeVar("Part")
PEER_MINUTES = 30.0
"""how long one waits for the others"""
_asked: Callable[[], bool] = bool
"""whether this process was asked to stop; see `stoppable`"""
_apart = False
"""see `apart`"""
_counts = True
"""whether what this process counts is part of the sums; see `uncounted`"""


def _nothing() -> None:
    """There is nothing to settle."""


_settle: Callable[[], None] = _nothing
"""see `settling`"""


class StoppedTogether(BaseException):
    """One of the processes that share a piece of work was asked to stop it; no error, so that no `except` keeps it."""


def join(cpu: bool, minutes: float = PEER_MINUTES) -> None:
    """Get to know the others that a launcher started beside this process, if any; on GPUs, each takes its own.

    `minutes`: how long one waits for the others, here and later.
    """
    if launched() == 1 or _at_work():
        return
    gpu = not cpu and torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0))
    wait = timedelta(minutes=minutes)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=wait, **_place_of_this_attempt(wait))


def started_again() -> bool:
    """Whether torchrun has started all processes, on this machine alone, again after a failure."""
    attempt, machines = (os.environ.get(name) for name in ("TORCHELASTIC_RESTART_COUNT", "GROUP_WORLD_SIZE"))
    return int(attempt or 0) > 0 and int(machines or 1) == 1


def _place_of_this_attempt(wait: timedelta) -> dict[str, Any]:
    """Where to meet the others if the launcher's own store, which outlives a failure, holds addresses of before.

    By themselves processes that were started again try these, and wait for nobody (pytorch issue 135712).
    """
    if not started_again() or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, launched(), is_master=False, timeout=wait)
    attempt = dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    return {"store": attempt, "rank": int(os.environ["RANK"]), "world_size": launched()}


def leave() -> None:
    """Part from the others, when nothing is left to do together."""
    if _at_work():
        dist.destroy_process_group()


def count() -> int:
    """How many processes share the work; 1 within `apart`."""
    return dist.get_world_size() if _at_work() and not _apart else 1


def rank() -> int:
    """Which of them this is; 0 is the main one, which writes."""
    return dist.get_rank() if _at_work() else 0


def launched() -> int:
    """How many processes a launcher started, by its environment variables: also before they know each other."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main() -> bool:
    """Whether this is the process that speaks, by the same."""
    return int(os.environ.get("RANK") or 0) == 0


def without_values(sharded: bool) -> AbstractContextManager[Any]:
    """Where a model is built whose values only the main process needs, as it deals them out: if it is `sharded`.

    In the others it has none (it is on the meta device), and takes no memory.
    """
    return torch.device("meta") if sharded and not is_main() else nullcontext()


def here() -> int:
    """How many of the processes are on this machine, as far as the launcher says and all machines have as many."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return local if count() % local == 0 else 1


def is_first_here() -> bool:
    """Whether this is the first of those `here`."""
    return here() == 1 or rank() % here() == 0


@contextmanager
def apart(value: bool = True) -> Iterator[None]:
    """Inside, this process works by itself: what it asks of the others has a plain answer. False: not any more."""
    global _apart  # noqa: PLW0603
    before, _apart = _apart, value
    try:
        yield
    finally:
        _apart = before


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


@contextmanager
def stoppable(asked: Callable[[], bool]) -> Iterator[None]:
    """Inside, `until_asked` ends when `asked` says so, and `found_by_all` raises StoppedTogether."""
    global _asked  # noqa: PLW0603
    _asked = asked
    try:
        yield
    finally:
        _asked = bool


@contextmanager
def settling(settle: Callable[[], None]) -> Iterator[None]:
    """Inside, `found_by_all` first calls `settle`: what this process still has to do for the others' work."""
    global _settle  # noqa: PLW0603
    _settle = settle
    try:
        yield
    finally:
        _settle = _nothing


def until_asked(parts: Iterable[Part]) -> Iterator[Part]:
    """All of `parts`, or as many as there is time for before this process is asked to stop."""
    for part in parts:
        if _asked():
            return
        yield part


def found_by_all(mine: Part) -> list[Part]:
    """What all processes found of a piece of work, on the main one; nothing on the others.

    Raises StoppedTogether, on every process, if one was asked to stop.
    """
    _settle()
    found = gathered((_asked(), mine))
    if from_main(any(asked for asked, _ in found)):
        raise StoppedTogether
    return [part for _, part in found]


def from_main(mine: Any) -> Any:
    """The main process's object, on every one."""
    if count() == 1:
        return mine
    shared = [mine]
    dist.broadcast_object_list(shared)
    return shared[0]


def from_first_here(mine: Any) -> Any:
    """The object of the first process of each machine, on every one of it."""
    if here() == 1:
        return mine
    group = None if here() == count() else dist.new_subgroups(here())[0]
    shared = [mine]
    dist.broadcast_object_list(shared, rank() - rank() % here(), group)
    return shared[0]


def _at_work() -> bool:
    return dist.is_available() and dist.is_initialized()
