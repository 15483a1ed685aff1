"""Photos read ahead, whole: what evaluations in tiles cut their tiles from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from piip import processes
from piip.data.image_files import ImageError
from piip.tasks.unread import Missing

Photo = TypeVar("Photo")


def photos_of_share(
    load: Callable[[int], Photo], count: int, workers: int, missing: Missing
) -> Iterator[tuple[int, Photo]]:
    """(position, what `load` gives) of this process's share of `count`, in order; those that cannot be read are noted.

    `workers` threads read that many ahead, since whole photos are too large to be handed over from other processes;
    decoding does not hold up Python meanwhile. 0: each is read when it is its turn.
    """
    positions = range(processes.rank(), count, processes.count())
    for position, read in processes.until_asked(_in_turn(load, positions, workers)):
        try:
            photo = read()
        except ImageError as error:
            missing.note(position, error)
            continue
        yield position, photo
        del photo, read  # before the next one is waited for


def _in_turn(
    load: Callable[[int], Photo], positions: Iterable[int], workers: int
) -> Iterator[tuple[int, Callable[[], Photo]]]:
    """Each position with what gives its photo."""
    if not workers:
        yield from ((position, lambda position=position: load(position)) for position in positions)
        return
    left = iter(positions)
    with ThreadPoolExecutor(workers, "read-ahead") as pool:
        ahead: deque[tuple[int, Future[Photo]]] = deque()
        try:
            while True:
                for position in islice(left, 1 + workers - len(ahead)):
                    ahead.append((position, pool.submit(load, position)))
                if not ahead:
                    return
                position, future = ahead.popleft()
                yield position, future.result
                del future
        finally:
            pool.shutdown(cancel_futures=True)
