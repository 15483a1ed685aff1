"""Ctrl-C, SIGTERM and a time limit end a training after the step at hand, with a checkpoint, an evaluation at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from piip import processes
from piip.training.launch import FOLDER


class Interrupted(BaseException):
    """The request to stop came where nothing is lost by stopping at once; no error, so that no `except` keeps it."""


CLOSING = 60.0
"""seconds, at most, that a limit leaves for the last checkpoint; a fiftieth of a shorter one"""


class StopRequest:
    """Whether, and by which signal, the training was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.asked = False
        """by a callback"""
        self.time_is_up = False
        self._deadline: float | None = None
        self._before: float | None = None
        self._longest = 0.0
        self._at_once = False
        self._launcher = os.getppid() if FOLDER in os.environ else None

    def __bool__(self) -> bool:
        return self.signal is not None or self.asked or self.time_is_up

    def ask(self) -> None:
        """End the training after the next step."""
        self.asked = True

    def within(self, seconds: float | None) -> None:
        """Also stop so early that all is saved in so many seconds from now; None: no limit."""
        if seconds is not None:
            self._deadline = time.monotonic() + seconds - min(CLOSING, seconds / 50)

    def in_time(self, batches: int) -> bool:
        """Whether to stop after the step at hand; asked once in every batch.

        `batches`: how many must still fit for that not to be necessary, each as long as the longest so far with the
        checkpoint behind it.
        """
        now = time.monotonic()
        if self._before is not None:
            self._longest = max(self._longest, now - self._before)
        self._before = now
        if self._deadline is not None and now + batches * self._longest >= self._deadline:
            self.time_is_up = True
        self._look_for_launcher()
        return bool(self)

    def _look_for_launcher(self) -> None:
        """Who is left behind by a launcher that was killed stops as if it had been told to: nobody else can tell it."""
        if self._launcher is not None and os.getppid() != self._launcher and self.signal is None:
            self.signal = signal.SIGTERM

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
            with self._alarm():
                yield
        finally:
            self._at_once = False
            self._before = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """`at_once` for several processes: none may leave in the middle, all do between two parts of shared work."""
        if processes.count() == 1:
            with self.at_once():
                yield
            return
        try:
            with processes.stoppable(self._is_due):
                yield
        except processes.StoppedTogether:
            raise Interrupted from None
        finally:
            self._before = None

    def _is_due(self) -> bool:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.time_is_up = True
        self._look_for_launcher()
        return bool(self)

    @contextmanager
    def _alarm(self) -> Iterator[None]:
        """At the deadline `Interrupted` is raised inside the block, where signals can be had."""
        main = threading.current_thread() is threading.main_thread()
        if self._deadline is None or not main or not hasattr(signal, "setitimer"):
            yield
            return
        before = signal.signal(signal.SIGALRM, self._on_time)
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, self._deadline - time.monotonic()))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _on_time(self, number: int, frame: FrameType | None) -> None:
        self.time_is_up = True
        raise Interrupted


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
