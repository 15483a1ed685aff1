"""`PIIP.train(processes=2)`: the job, the processes and the result that comes back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_training import toy_config, toy_settings

import piip
from piip.data.synthetic import make_scenes
from piip.training import handed_over, launch
from piip.training.callbacks import Callback
from piip.training.failures import TrainingFailure
from piip.training.handed_over import Job, train_in
from piip.training.loop import RunResult
from piip.training.start import start_run


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is done here, not by processes of its own."""
    monkeypatch.setattr(handed_over, "_run", lambda command: handed_over._one_of_them(Path(command[3])))


def scenes(folder: Path) -> Path:
    make_scenes(folder / "scenes", train=4, val=1, size=(64, 64))
    return folder / "scenes"


@pytest.mark.parametrize("processes", [0, -2, 2.5, True, "2"])
def test_what_is_no_number_of_processes_is_refused(tmp_path: Path, processes: Any) -> None:
    with pytest.raises(ValueError, match="give a whole number, at least 1"):
        piip.PIIP(toy_config()).train(tmp_path, 1, processes=processes)
    with pytest.raises(ValueError, match="give a whole number, at least 1"):
        piip.PIIP.resume(tmp_path, processes=processes)


def test_callbacks_that_could_not_be_told_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="callbacks are not told"):
        piip.PIIP(toy_config(), "cpu").train(tmp_path, 1, processes=2, callbacks=[Callback()])


def test_a_job_is_the_same_when_it_arrives() -> None:
    settings = toy_settings(lora=4, freeze="0", augmentation={"flip": 0.0}, data="here", class_weights=None)
    job = Job(base=toy_config(), settings=settings, name="of mine", head={"detections": 7}, part=("backbone.", "head."))
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_the_result_is_that_of_one_process(tmp_path: Path, in_this_process: None) -> None:
    settings = toy_settings(data=str(scenes(tmp_path)), epochs=1, batch_size=2)
    one, _ = start_run(toy_config(), None, settings, tmp_path / "one")
    job = Job(base=toy_config(), settings=settings, output=str(tmp_path / "two"))
    two = train_in(2, {}, job, None)
    assert (two.folder, two.end, two.signal, two.metric) == (tmp_path / "two" / "detection" / "toy", *ends(one))
    assert [row | {"seconds": 0} for row in two.history] == [row | {"seconds": 0} for row in one.history]
    assert two.best_weights is not None
    mine, others = load_file(two.best_weights), load_file(one.folder / "weights" / "best.safetensors")
    assert all(torch.equal(value, others[key]) for key, value in mine.items())
    again = train_in(2, {}, Job(resume=str(two.folder), changes={"epochs": 2}), None)
    assert [row["epoch"] for row in again.history] == [1, 2]


def ends(result: RunResult) -> tuple[str, int | None, str]:
    return result.end, result.signal, result.metric


def test_errors_are_those_of_one_process(
    tmp_path: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = toy_settings(data=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="no run to resume here"):
        train_in(2, {}, Job(resume=str(tmp_path)), None)
    with pytest.raises(ValueError, match="nowhere"):
        train_in(2, {}, Job(base=toy_config(), settings=nowhere), None)
    monkeypatch.setattr(handed_over, "start_run", lambda *job: 1 / 0)
    with pytest.raises(TrainingFailure, match="division by zero"):
        train_in(2, {}, Job(base=toy_config(), settings=nowhere), None)
    monkeypatch.setattr(handed_over, "_run", lambda command: 137)
    with pytest.raises(TrainingFailure, match="exit code 137"):
        train_in(2, {}, Job(base=toy_config(), settings=nowhere), None)


def test_the_device_is_looked_at_before_anything_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="4 processes, but 2 GPUs"):
        launch.wanted(4, None, None)


SECONDS = 1200
"""that a training of few steps may take where many processes share the processors; alone it is half a minute"""
PROGRAM = """
import io, sys
import piip
from toy_training import toy_config

shown, sys.stderr = sys.stderr, io.StringIO()  # as a notebook does
sys.excepthook = lambda kind, error, place: print(kind, error, sys.stderr.getvalue(), file=shown)
model = piip.PIIP(toy_config(), device="cpu")
settings = {{"batch_size": 2, "workers": 0, "ema": None, "log": "none"}}
result = model.train({data!r}, {epochs}, output={output!r}, processes=2, **settings)
said = sys.stderr.getvalue()
assert "2 processes x 2 images = 4 per step" in said, said
assert said.count("in batches of 2 on cpu") == 1, said
print(result.end, result.signal, len(result.history), model.names)
"""


def program(folder: Path, epochs: int) -> subprocess.Popen[str]:
    """A script without a guard for its main part."""
    script = folder / "script.py"
    script.write_text(PROGRAM.format(data=str(scenes(folder)), epochs=epochs, output=str(folder / "runs")))
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, str(script)], text=True, env=environment, **pipes)


@pytest.mark.slow  # four processes that import everything
def test_a_plain_script_trains_in_two_processes(tmp_path: Path) -> None:
    out, error = (started := program(tmp_path, 1)).communicate(timeout=SECONDS)
    assert started.returncode == 0, error
    assert out.splitlines()[-1] == "finished None 1 ('disc', 'square', 'triangle', 'star', 'cross')"
    assert load_file(tmp_path / "runs" / "detection" / "toy" / "weights" / "best.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_its_processes_end_with_it_and_with_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    started = program(tmp_path, 100000)
    weights = tmp_path / "runs" / "detection" / "toy" / "weights"
    while not (weights / "last.ckpt").exists():
        assert started.poll() is None, started.communicate()
        time.sleep(0.2)
    started.send_signal(number)
    out, error = started.communicate(timeout=SECONDS)
    if number == signal.SIGINT:
        assert started.returncode == 0, error
        assert out.splitlines()[-1].startswith("stopped 2 ")
        return
    assert started.returncode == -signal.SIGKILL
    end = time.monotonic() + 120
    while (weights.parent / "run.lock").exists() and time.monotonic() < end:  # the main process's, while it trains
        time.sleep(0.5)
    assert not (weights.parent / "run.lock").exists()
