"""Ctrl-C and SIGTERM end a training after the step at hand, with a saved checkpoint, and an evaluation at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The request to stop came where nothing is lost by stopping at once; no error, so that no `except` keeps it."""


class StopRequest:
    """Whether, and by which signal, the training was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the first signal is remembered, a second Ctrl-C interrupts at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._at_once:
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block a request raises `Interrupted`, also one from before; for work that may be thrown away."""
        self._at_once = True
        try:
            if self:
                raise Interrupted
            yield
        finally:
            self._at_once = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Inside the block, SIGINT and SIGTERM only set the yielded request (in the main thread; else nothing)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python allows signal handlers in the main thread only
        return
    before = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
