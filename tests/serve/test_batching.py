import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from piip.serve.batching import Batching, Failed, ShuttingDown, Unavailable
from piip.serve.limits import Limits
from piip.serve.metrics import Metrics
from piip.serve.wanted import Answer, Image, Refused, Wanted
from piip.serve.worker import WorkerDied, WorkerNotReady, WorkerTooSlow

POISON, BAD = 66, 13


class Model:
    """A worker that answers with the image's first value, and waits where the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.dies_once = False
        self.fails: Exception | None = None

    def call(self, images: Sequence[Image], seconds: float) -> list[Answer | Refused]:
        assert self.go.wait(30)
        values = [int(image.pixels[0, 0, 0]) for image in images]
        self.batches.append(values)
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error
        if self.dies_once:
            self.dies_once = False
            raise WorkerDied("the process ended")
        if POISON in values:
            raise WorkerTooSlow("the process took too long")
        return [Refused("a bad one") if v == BAD else Answer(bytes([v]), "image/png") for v in values]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def batching(model: Model) -> Iterator[Batching]:
    batching = Batching([model], Limits(batch=4), Metrics())  # type: ignore[list-item]
    yield batching
    model.go.set()
    batching.close()


def image(value: int) -> Image:
    return Image(np.full((2, 2, 3), value, np.uint8), Wanted())


def submitted(batching: Batching, values: Sequence[int]) -> list:
    """The first is taken at once and waits in the model; the others wait for it."""
    futures = [batching.submit(image(values[0]), 60)]
    deadline = time.monotonic() + 30
    while batching.waiting and time.monotonic() < deadline:
        time.sleep(0.005)
    return futures + [batching.submit(image(value), 60) for value in values[1:]]


def test_what_waits_goes_together_and_in_order(batching: Batching, model: Model) -> None:
    futures = submitted(batching, [1, 2, 3, 4, 5, 6])
    model.go.set()
    assert [future.result(30).body[0] for future in futures] == [1, 2, 3, 4, 5, 6]
    assert model.batches == [[1], [2, 3, 4, 5], [6]]


def test_an_image_that_kills_the_process_costs_itself_alone(batching: Batching, model: Model) -> None:
    futures = submitted(batching, [1, 2, POISON, 4])
    model.go.set()
    assert [futures[i].result(30).body[0] for i in (0, 1, 3)] == [1, 2, 4]
    with pytest.raises(Failed, match="2 times with this image"):
        futures[2].result(30)
    assert model.batches == [[1], [2, POISON, 4], [2], [POISON], [4]]


def test_a_process_that_was_killed_costs_nobody_anything(batching: Batching, model: Model) -> None:
    model.dies_once = True
    futures = submitted(batching, [1, 2, 3])
    model.go.set()
    assert [future.result(30).body[0] for future in futures] == [1, 2, 3]


def test_an_image_that_fails_takes_none_with_it(batching: Batching, model: Model) -> None:
    futures = submitted(batching, [1, 2, BAD, 3])
    model.go.set()
    assert [futures[i].result(30).body[0] for i in (0, 1, 3)] == [1, 2, 3]
    with pytest.raises(Failed, match="a bad one"):
        futures[2].result(30)


def test_who_stops_waiting_at_the_last_moment_stops_nobody_else(
    batching: Batching, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submitted(batching, [1, BAD])
    for future in (first, second):
        future.cancel()
        monkeypatch.setattr(future, "done", lambda: False)  # as it was a moment ago
        monkeypatch.setattr(future, "cancelled", lambda: False)
    model.go.set()
    assert batching.submit(image(3), 60).result(10).body[0] == 3


@pytest.mark.parametrize(
    ("error", "answer"),
    [(WorkerNotReady("no more processes"), Unavailable), (OSError("no more processes"), Failed)],
)
def test_a_process_that_cannot_begin_costs_its_images_alone(
    batching: Batching, model: Model, error: Exception, answer: type[Failed]
) -> None:
    model.fails = error
    first, *_ = submitted(batching, [1])
    model.go.set()
    with pytest.raises(answer, match="no more processes"):
        first.result(10)
    assert batching.submit(image(2), 60).result(10).body[0] == 2


def test_what_nobody_waits_for_is_not_done(batching: Batching, model: Model) -> None:
    first, *_ = submitted(batching, [1])
    late = batching.submit(image(2), -1.0)
    model.go.set()
    assert first.result(30).body[0] == 1
    with pytest.raises(TimeoutError):
        late.result(30)
    assert model.batches == [[1]]


def test_closing_finishes_what_runs_and_fails_what_waits(batching: Batching, model: Model) -> None:
    running, waiting = submitted(batching, [1, 2])
    threading.Timer(0.1, model.go.set).start()
    batching.close()
    assert running.result(30).body[0] == 1
    with pytest.raises(ShuttingDown):
        waiting.result(30)


def test_images_wait_for_others_where_they_are_told_to(model: Model) -> None:
    model.go.set()
    batching = Batching([model], Limits(batch=2, batch_wait=20.0), Metrics())  # type: ignore[list-item]
    futures = [batching.submit(image(1), 60), batching.submit(image(2), 60)]
    assert [future.result(30).body[0] for future in futures] == [1, 2]
    batching.close()
    assert model.batches == [[1, 2]]


def test_limits_are_positive() -> None:
    with pytest.raises(ValueError, match="queue 0: use a number above 0"):
        Limits(queue=0)
