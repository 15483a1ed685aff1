"""What a server counts, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""upper ends of the histograms' classes"""


class Metrics:
    """Counters of one server, each with a registry of its own so that several fit in a process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "piip_requests", "Requests to /predict that were answered.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "piip_request_seconds", "From a request's first byte to its answer.", buckets=SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "piip_batch_images", "Images per forward pass.", buckets=(1, 2, 4, 8, 16, 32), registry=self._registry
        )
        self._model = Histogram(
            "piip_model_seconds", "Of a batch in the model's process.", buckets=SECONDS, registry=self._registry
        )
        self._replaced = Counter(
            "piip_processes_replaced", "Processes that died or took too long.", ["kind"], registry=self._registry
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that asks for its value when it is read."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def request(self, status: int, seconds: float) -> None:
        """A request that was answered."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def batch(self, images: int, seconds: float) -> None:
        """A batch that the model has done."""
        self._batches.observe(images)
        self._model.observe(seconds)

    def replaced(self, kind: str) -> None:
        """A process that had to be replaced."""
        self._replaced.labels(kind).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
