"""Something small of each of many files: one after the other while the disk keeps up, in threads where it does not.

On a local disk threads only wait for each other: eight of them take three to five times the processor's time of one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

File = TypeVar("File")
Found = TypeVar("Found")

THREADS = 8
TOGETHER = 64
"""files that a thread gets at once: handing out each by itself takes as long as opening it"""
LOOKED_AT = 256
"""files after which it is asked whether the disk keeps up"""
WAITS = 0.0005
"""seconds of waiting for a file, beyond which threads are of use: a network disk, or one that has to turn"""


def of_each(read: Callable[[File], Found], files: Sequence[File]) -> list[Found]:
    """`read` of every file, in their order; what it raises is raised."""
    found: list[Found] = []
    while len(found) < len(files):
        some = files[len(found) : len(found) + LOOKED_AT]
        began = _Clocks.now()
        found += map(read, some)
        if _Clocks.now().waited_since(began, len(some)):
            return found + _in_threads(read, files[len(found) :])
    return found


COUNTED = sys.platform == "linux"
"""whether the system says how often a thread had to wait"""


def _let_go() -> int:
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class _Clocks(NamedTuple):
    """Of this thread."""

    passed: float
    """seconds"""
    busy: float
    """seconds of a processor"""
    let_go: int
    """times that it had to wait for something else than a processor, where the system counts them"""

    @classmethod
    def now(cls) -> _Clocks:
        return cls(time.perf_counter(), time.thread_time(), _let_go() if COUNTED else 0)

    def waited_since(self, before: _Clocks, files: int) -> bool:
        """Whether so many files kept it waiting, and not other programs which use the processors."""
        waited = self.passed - before.passed - (self.busy - before.busy)
        for_a_disk = not COUNTED or self.let_go - before.let_go > files / 2
        return waited > WAITS * files and for_a_disk


def _in_threads(read: Callable[[File], Found], files: Sequence[File]) -> list[Found]:
    parts = [files[start : start + TOGETHER] for start in range(0, len(files), TOGETHER)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [one for some in pool.map(lambda part: list(map(read, part)), parts) for one in some]
