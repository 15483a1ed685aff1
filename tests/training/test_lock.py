"""Two trainings never write into one folder, and a dead one's lock is no lock."""

import subprocess
import sys
from pathlib import Path

import pytest
from toy_training import ToyData, toy_model, toy_settings

from piip.lock import NAME, RunInUse, locked
from piip.training.loop import train

pytest.importorskip("fcntl")
HOLD = """
import sys, time
from pathlib import Path
from piip.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """Another process that has the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder) as process:
        try:
            with pytest.raises(RunInUse, match=rf"run: a training is at work here \(process {process.pid} on .*since"):
                train(toy_model(), ToyData(3), toy_settings(epochs=1), folder)
            assert [path.name for path in folder.iterdir()] == [NAME]
        finally:
            process.kill()
    assert (folder / NAME).exists()
    with locked(folder):
        assert str(process.pid) not in (folder / NAME).read_text().split()
    assert not (folder / NAME).exists()


def test_the_lock_goes_with_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path):
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert list(tmp_path.iterdir()) == []
