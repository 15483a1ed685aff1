"""Images that wait, and the threads that take them to the model's processes in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from piip.serve.limits import Limits
from piip.serve.metrics import Metrics
from piip.serve.wanted import Answer, Image, Refused
from piip.serve.worker import Worker, WorkerDied, WorkerNotReady, WorkerTooSlow

ModelWorker = Worker[Sequence[Image], list[Answer | Refused]]
TRIES = 2
"""times that an image goes to a process that dies over it; after the first it goes alone"""


@dataclass(eq=False)
class Job:
    """An image that waits for its answer."""

    image: Image
    until: float
    """on the monotonic clock: when nobody waits for it any more"""
    answer: Future[Answer] = field(default_factory=Future)
    tries: int = 0
    since: float = field(default_factory=time.monotonic)


class Failed(RuntimeError):
    """The model gave no answer to an image; the text says why."""


class Unavailable(Failed):
    """Nothing could take the image now; the text says why."""


class ShuttingDown(Unavailable):
    """There was no time left for an image before the server ends."""


class Batching:
    """Takes images to `workers`, each of which does one batch at a time.

    The images that wait when a worker is free go together. One that kills a worker, or fails, costs itself alone:
    the others of its batch are tried again, each alone.
    """

    def __init__(self, workers: Sequence[ModelWorker], limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, args=(worker,), daemon=True) for worker in workers]
        for thread in self._threads:
            thread.start()

    def submit(self, image: Image, seconds: float) -> Future[Answer]:
        """The answer to come. Its exceptions are `Failed`, and TimeoutError where nobody had time for it."""
        job = Job(image, time.monotonic() + seconds)
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job.answer

    @property
    def waiting(self) -> int:
        """Images that no worker has yet."""
        return len(self._waiting)

    def close(self) -> None:
        """No more batches; what waits fails, what runs is finished."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for job in left:
            _fail(job, ShuttingDown("the server is shutting down"))
        for thread in self._threads:
            thread.join()

    def _serve(self, worker: ModelWorker) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._run(worker, batch)

    def _next_batch(self) -> list[Job] | None:
        """What goes together next; None when there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            if self._limits.batch_wait and len(self._waiting) < self._limits.batch:
                enough = self._limits.batch
                self._changed.wait_for(lambda: len(self._waiting) >= enough or self._closed, self._limits.batch_wait)
            batch: list[Job] = []
            while self._waiting and len(batch) < self._limits.batch:
                if batch and (self._waiting[0].tries or batch[0].tries):
                    break  # an image that was there when a process died goes alone
                batch.append(self._waiting.popleft())
        now = time.monotonic()
        for job in (late := [job for job in batch if job.until <= now or job.answer.cancelled()]):
            _fail(job, TimeoutError())
        return [job for job in batch if job not in late]

    def _run(self, worker: ModelWorker, batch: list[Job]) -> None:
        began = time.monotonic()
        for job in batch:
            job.tries += 1
        try:
            answers = worker.call([job.image for job in batch], self._limits.seconds * len(batch))
        except (WorkerDied, WorkerTooSlow) as error:
            self._again(batch, error)
            return
        except WorkerNotReady as error:
            for job in batch:
                _fail(job, Unavailable(str(error)))
            return
        except Exception as error:  # whatever it is: this thread must go on
            for job in batch:
                _fail(job, Failed(str(error)))
            return
        self._metrics.batch(len(batch), time.monotonic() - began)
        for job, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Refused):
                _fail(job, Failed(answer.reason))
            else:
                with suppress(InvalidStateError):  # nobody waits any more
                    job.answer.set_result(answer)

    def _again(self, batch: list[Job], error: Exception) -> None:
        """Another try for those that may not be the cause; for a single one that had its tries, the error."""
        left = [job for job in batch if job.tries < TRIES]
        for job in batch:
            if job not in left:
                _fail(job, Failed(f"{error}, {TRIES} times with this image"))
        with self._changed:
            if self._closed:
                for job in left:
                    _fail(job, ShuttingDown(str(error)))
            else:
                self._waiting.extendleft(reversed(left))


def _fail(job: Job, error: Exception) -> None:
    with suppress(InvalidStateError):  # nobody waits any more; asking first would leave a moment for that
        job.answer.set_exception(error)
