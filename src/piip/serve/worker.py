"""A process that answers one call at a time, and is replaced when it dies or takes too long."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

Call = TypeVar("Call")
Answer = TypeVar("Answer")
Answering = Callable[[Call], Answer]
STARTING = 600.0
"""seconds that a process may take until it is ready; large models are read from slow disks"""
LEAVING = 5.0
"""seconds to end by itself before it is ended"""


class WorkerDied(RuntimeError):
    """The process ended in the middle of a call: by a fault in a library, or for want of memory."""


class WorkerTooSlow(RuntimeError):
    """A call took longer than it may; the process was ended."""


class WorkerNotReady(ValueError):
    """A process could not begin, which this text says why; another is begun with the next call."""


class CallFailed(RuntimeError):
    """What answers the call raised an exception, whose text this is; the process goes on."""


class Worker(Generic[Call, Answer]):
    """A child process that holds what answers calls, one at a time.

    Args:
        make: run once in the process; gives what answers. Both it and the calls must be picklable.
        kind: what to call it in messages.
        died: called whenever the process had to be replaced.

    Attributes:
        facts: what `make`'s object says of itself as `facts`, or None.
    """

    def __init__(
        self, make: Callable[[], Answering[Call, Answer]], kind: str, died: Callable[[], object] = lambda: None
    ) -> None:
        self.kind = kind
        self.facts: Any = None
        self._make, self._died = make, died
        self._process: Any = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Begin the process, without waiting for it."""
        with self._lock:
            self._begin()

    def await_ready(self) -> None:
        """Wait until it is ready; WorkerNotReady with the reason where `make` failed."""
        with self._lock:
            self._await_ready()

    def call(self, item: Call, seconds: float) -> Answer:
        """The answer to `item`.

        Raises:
            CallFailed: by an exception in the process.
            WorkerDied, WorkerTooSlow: the process is gone, and a new one begins with the next call.
            WorkerNotReady: there was none, and a new one could not begin.
        """
        until = time.monotonic() + seconds
        with self._lock:
            if self._process is None:
                self._begin()
                self._await_ready()
                until = max(until, time.monotonic() + seconds)  # the wait for a new process is not the caller's fault
            pipe = self._open_pipe
            try:
                pipe.send(item)
                if not pipe.poll(max(0.0, until - time.monotonic())):
                    self._end()
                    self._died()
                    raise WorkerTooSlow(f"{self.kind} took longer than {seconds:g} seconds")
                kind, answer = pipe.recv()
            except (EOFError, OSError) as error:
                code = self._end()
                self._died()
                raise WorkerDied(f"{self.kind} ended with exit code {code}") from error
        if kind == "failed":
            raise CallFailed(answer)
        return answer

    def close(self) -> None:
        """End the process, if it is there; waits for a call that is running."""
        with self._lock:
            if self._pipe is not None:
                self._pipe.close()
                self._pipe = None
            if self._process is not None:
                self._process.join(LEAVING)
            self._end()

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        process = self._process
        return process is not None and process.is_alive()

    @property
    def _open_pipe(self) -> Connection:
        assert self._pipe is not None
        return self._pipe

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        try:
            self._pipe, theirs = context.Pipe()
            with theirs:  # closed here, so that the child's end is the only one, and its death is seen
                process = context.Process(target=_serve, args=(self._make, theirs), daemon=True, name=self.kind)
                process.start()
        except OSError as error:  # no memory, or no more processes or files
            self._end()
            raise WorkerNotReady(f"{self.kind} could not begin ({error})") from error
        self._process = process

    def _await_ready(self) -> None:
        pipe = self._open_pipe
        try:
            if not pipe.poll(STARTING):
                self._end()
                raise WorkerNotReady(f"{self.kind} was not ready after {STARTING:g} seconds")
            kind, said = pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerNotReady(f"{self.kind} ended with exit code {self._end()} before it was ready") from error
        if kind == "failed":
            self._end()
            raise WorkerNotReady(said)
        self.facts = said

    def _end(self) -> int | None:
        """Exit code of the process, which is gone after this."""
        process, self._process = self._process, None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if process is None:
            return None
        process.join(0.2)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode


def _serve(make: Callable[[], Answering[Any, Any]], pipe: Connection) -> None:
    """The life of the process: it ends when the other end of the pipe is closed, also by the parent's death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to end
    with contextlib.suppress(EOFError, OSError):
        try:
            answering = make()
        except Exception as error:
            pipe.send(("failed", str(error) or type(error).__name__))
            return
        pipe.send(("ready", getattr(answering, "facts", None)))
        while True:
            item = pipe.recv()
            try:
                answer = ("done", answering(item))
            except Exception as error:
                said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                answer = ("failed", said)
            pipe.send(answer)
