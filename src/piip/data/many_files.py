"""Something small of each of many files: one after the other while the disk keeps up, in threads where it does not.

On a local disk threads only wait for each other: eight of them take three to five times the processor's time of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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
        began, busy = time.perf_counter(), time.thread_time()
        found += map(read, some)
        waited = time.perf_counter() - began - (time.thread_time() - busy)
        if waited > WAITS * len(some):
            return found + _in_threads(read, files[len(found) :])
    return found


def _in_threads(read: Callable[[File], Found], files: Sequence[File]) -> list[Found]:
    parts = [files[start : start + TOGETHER] for start in range(0, len(files), TOGETHER)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [one for some in pool.map(lambda part: list(map(read, part)), parts) for one in some]
