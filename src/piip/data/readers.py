"""Processes that read images for another one, which alone decides what a signal means."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch.utils.data import DataLoader

T_co = TypeVar("T_co", covariant=True)

KNOWS_THE_SENDER = hasattr(signal, "sigwaitinfo")
"""Linux; elsewhere who sent a signal stays unknown, and a SIGTERM ends a worker whoever sent it"""


class Readers(DataLoader[T_co]):
    """A `DataLoader` whose workers outlive Ctrl-C and a scheduler's SIGTERM, which reach every process of a group.

    The process that asked for them decides, and they end with it. So it is from their first moment on: they are
    started while these signals wait, and begin so themselves.
    """

    def __init__(self, dataset: Any, **named: Any) -> None:
        super().__init__(dataset, worker_init_fn=leave_signals_to_the_parent, **named)

    def __iter__(self) -> Any:
        with _signals_wait():
            return super().__iter__()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What comes meanwhile is received afterwards, but by processes that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    waiting = {signal.SIGINT, signal.SIGTERM} if KNOWS_THE_SENDER else {signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_the_parent(worker: int) -> None:
    """What a worker does first; its SIGINT may wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if KNOWS_THE_SENDER:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_parent, daemon=True).start()


def _obey_the_parent() -> None:
    """End this worker at a SIGTERM of its parent, which is how Python clears up when it exits, and at no other.

    The parent is the process that asked for the worker: under "forkserver" another one has forked it.
    """
    parent = multiprocessing.parent_process()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != (parent.pid if parent else os.getppid()):
        pass
    os._exit(0)
