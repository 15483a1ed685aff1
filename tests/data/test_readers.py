"""Processes that read images: what signals do to them."""

import multiprocessing
import signal
import subprocess
import sys
import time

import pytest

from piip.data import readers
from piip.data.readers import Readers


def slow_to_begin(worker: int) -> None:
    """As on a busy machine, where a signal comes before a process has done anything."""
    time.sleep(1)
    readers.leave_signals_to_the_parent(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a SIGTERM's sender is not known")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_reader_that_has_hardly_begun(number: signal.Signals) -> None:
    loader: Readers[int] = Readers(range(8), batch_size=None, num_workers=2)
    loader.worker_init_fn = slow_to_begin
    images = iter(loader)
    children = multiprocessing.active_children()
    assert len(children) == 2
    another = ["kill", f"-{number.value}", *(str(child.pid) for child in children)]  # the parent's own they obey
    subprocess.run(another, check=True)
    assert list(images) == list(range(8))


@pytest.mark.skipif(sys.platform == "win32", reason="no such masks")
def test_signals_of_the_process_itself_are_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    loader: Readers[int] = Readers(range(4), batch_size=None, num_workers=1)
    assert list(loader) == list(range(4))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
