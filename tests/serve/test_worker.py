from collections.abc import Iterator

import numpy as np
import pytest
from tests.serve.answering import Answering, broken, dying

from piip.serve.worker import CallFailed, Worker, WorkerDied, WorkerNotReady, WorkerTooSlow


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(Answering, "the test's process")
    worker.begin()
    worker.await_ready()
    yield worker
    worker.close()


def test_answers_large_and_small_calls(worker: Worker) -> None:
    assert worker.facts == "ready to answer"
    assert worker.call("hello", 30) == "hello"
    image = np.arange(3_000_000, dtype=np.uint8).reshape(1000, 1000, 3)
    assert (worker.call(image, 30) == image).all()


def test_an_exception_costs_the_call_only(worker: Worker) -> None:
    process = worker.call("pid", 30)
    with pytest.raises(CallFailed, match="no such thing"):
        worker.call("fail", 30)
    assert worker.call("pid", 30) == process


def test_a_dead_process_is_replaced(worker: Worker) -> None:
    process = worker.call("pid", 30)
    with pytest.raises(WorkerDied, match=r"the test's process ended with exit code 9"):
        worker.call("die", 30)
    assert not worker.alive
    assert worker.call("pid", 30) != process


def test_a_hanging_process_is_replaced_and_counted() -> None:
    replaced: list[int] = []
    worker = Worker(Answering, "the test's process", lambda: replaced.append(1))
    worker.begin()
    worker.await_ready()
    with pytest.raises(WorkerTooSlow, match=r"longer than 0\.1 seconds"):
        worker.call("hang", 0.1)
    assert replaced == [1]
    assert worker.call("again", 30) == "again"
    worker.close()
    assert not worker.alive


@pytest.mark.parametrize(("make", "reason"), [(broken, "weights that are none"), (dying, "ended with exit code 3")])
def test_what_cannot_begin_says_why(make, reason: str) -> None:
    worker = Worker(make, "the test's process")
    worker.begin()
    with pytest.raises(ValueError, match=reason):
        worker.await_ready()
    worker.close()


def test_a_process_that_cannot_begin_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(Answering, "the test's process")
    with monkeypatch.context() as patch:
        patch.setattr("multiprocessing.context.SpawnProcess.start", lambda _: (_ for _ in ()).throw(BlockingIOError()))
        for _ in range(2):
            with pytest.raises(WorkerNotReady, match="the test's process could not begin"):
                worker.call("hello", 30)
        assert not worker.alive
    assert worker.call("hello", 30) == "hello"
    worker.close()


def test_a_process_that_ends_before_it_is_ready_costs_the_call_only() -> None:
    worker = Worker(dying, "the test's process")
    for _ in range(2):
        with pytest.raises(WorkerNotReady, match="exit code 3 before it was ready"):
            worker.call("hello", 30)
    worker.close()
