"""The processes behind a server: those that decode uploads and those that hold the model."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from queue import LifoQueue
from typing import Any, Literal

import numpy as np

from piip.serve.batching import Batching, ModelWorker
from piip.serve.decoding import Decoding
from piip.serve.limits import Limits
from piip.serve.metrics import Metrics
from piip.serve.source import ModelSource
from piip.serve.wanted import Answer, Image, Wanted
from piip.serve.worker import Worker

DECODERS = 2


class Engine:
    """Answers images with `workers` copies of a model.

    The event loop of the server stays free: whatever takes time is in a process of its own.
    """

    def __init__(self, source: ModelSource, limits: Limits, workers: int = 1, metrics: Metrics | None = None) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers: use 1 or more")
        self.limits = limits
        self.metrics = metrics or Metrics()
        self.facts: dict[str, Any] = {}
        self._models: list[ModelWorker] = [
            Worker(source, "the model's process", partial(self.metrics.replaced, "model")) for _ in range(workers)
        ]
        decoders: list[Worker[bytes, np.ndarray]] = [
            Worker(partial(Decoding, limits.pixels), "the decoder", partial(self.metrics.replaced, "decoder"))
            for _ in range(min(DECODERS, os.cpu_count() or 1))
        ]
        self._all_decoders = decoders
        self._decoders: LifoQueue[Worker[bytes, np.ndarray]] = LifoQueue()
        for decoder in decoders:
            self._decoders.put(decoder)
        self._batching: Batching | None = None

    def start(self) -> None:
        """Load the model in each process, and wait; ValueError with the reason where it cannot be loaded."""
        try:
            for begin in self._each("begin"):
                begin()
            for await_ready in self._each("await_ready"):
                await_ready()
        except BaseException:
            self.close()
            raise
        self.facts = self._models[0].facts
        self._batching = Batching(self._models, self.limits, self.metrics)
        self.metrics.watch("piip_waiting", "Images that no process has yet.", lambda: self.waiting)

    def close(self) -> None:
        """End all processes, after what they are doing."""
        if self._batching is not None:
            self._batching.close()
        for close in self._each("close"):
            close()

    @property
    def waiting(self) -> int:
        """Images that no process has yet."""
        return 0 if self._batching is None else self._batching.waiting

    @property
    def ready(self) -> bool:
        """Whether a model is loaded."""
        return any(worker.alive for worker in self._models)

    async def answer(self, upload: bytes, wanted: Wanted) -> Answer:
        """The answer to an upload.

        Raises:
            CallFailed: no image, with the reason.
            WorkerDied, WorkerTooSlow: decoding it ended the process.
            WorkerNotReady: there is no process that could decode it.
            Failed: the model could not, with the reason.
        """
        assert self._batching is not None, "start() first"
        began = time.monotonic()
        pixels = await asyncio.to_thread(self._decode, upload)
        left = self.limits.seconds - (time.monotonic() - began)
        return await asyncio.wrap_future(self._batching.submit(Image(pixels, wanted), left))

    def _each(self, verb: Literal["begin", "await_ready", "close"]) -> list[Callable[[], None]]:
        return [getattr(worker, verb) for worker in (*self._models, *self._all_decoders)]

    def _decode(self, upload: bytes) -> np.ndarray:
        decoder = self._decoders.get()
        try:
            return decoder.call(upload, self.limits.seconds)
        finally:
            self._decoders.put(decoder)
