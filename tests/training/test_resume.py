"""A run that was interrupted anywhere and resumed ends with the same bits as one that was not."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import ToyData, toy_metric, toy_model, toy_settings

from piip.training.checkpoint import load_checkpoint
from piip.training.folder import RunFolder
from piip.training.loop import RunResult, train
from piip.training.report import Report


class Crash(Exception):
    """Instead of a power cut."""


def run(folder: Path, resume: bool = False, **settings: Any) -> RunResult:
    """A resumed run gets another model's weights, which must not matter."""
    model = toy_model(seed=99 if resume else 0)
    return train(model, ToyData(11), toy_settings(**settings), folder, toy_metric, resume=resume)


def outcome(folder: Path) -> dict[str, Any]:
    """All that the run is: weights, average, optimizer and the losses and metrics so far, but no times."""
    state = load_checkpoint(RunFolder(folder).checkpoint)
    position = state["position"]
    position["seconds"] = 0.0
    for row in position["history"]:
        row["seconds"] = 0.0
    return {key: state[key] for key in ("position", "model", "average", "optimizer")}


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, through dicts and lists."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}/{i}")
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("straight")
    run(folder)
    return outcome(folder)


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    """Do `action` right after optimizer step `step`, before its checkpoint."""
    report = Report.step

    def step_and_act(self: Report, epoch: int, number: int, values: Any) -> None:
        report(self, epoch, number, values)
        if number == step:
            action()

    monkeypatch.setattr(Report, "step", step_and_act)


def crash() -> None:
    raise Crash


@pytest.mark.parametrize(("workers", "crash_after"), [(0, 2), (0, 4), (2, 4)])
def test_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: dict[str, Any], workers: int, crash_after: int
) -> None:
    """Two steps an epoch: the checkpoints that are resumed from are of the middle of epochs 1 and 2."""
    at_step(monkeypatch, crash_after, crash)
    with pytest.raises(Crash):
        run(tmp_path, workers=workers)
    position = load_checkpoint(RunFolder(tmp_path).checkpoint)["position"]
    assert (position["step"], position["batch"]) == (crash_after - 1, 3)
    monkeypatch.undo()
    result = run(tmp_path, resume=True, workers=workers)
    assert result.end == "finished"
    assert_same(outcome(tmp_path), straight)
    assert [row["epoch"] for row in result.history] == [1, 2, 3]


def test_crash_in_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: dict[str, Any]) -> None:
    def fail(model: Any) -> dict[str, float]:
        raise Crash

    with pytest.raises(Crash):
        train(toy_model(), ToyData(11), toy_settings(save_interval=None), tmp_path, fail)
    position = load_checkpoint(RunFolder(tmp_path).checkpoint)["position"]
    assert (position["epoch"], position["batch"], position["step"]) == (0, 4, 2)
    run(tmp_path, resume=True, save_interval=None)
    assert_same(outcome(tmp_path), straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: dict[str, Any], number: signal.Signals
) -> None:
    handler = signal.getsignal(number)
    at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    stopped = run(tmp_path)
    assert (stopped.end, stopped.signal) == ("stopped", number)
    assert signal.getsignal(number) is handler
    monkeypatch.undo()
    # Asked for in the last step of epoch 1, done before its evaluation, which may be long.
    position = load_checkpoint(RunFolder(tmp_path).checkpoint)["position"]
    assert (position["epoch"], position["step"]) == (0, 2)
    resumed = run(tmp_path, resume=True)
    assert (resumed.end, resumed.signal) == ("finished", None)
    assert_same(outcome(tmp_path), straight)


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_signal_in_an_evaluation_ends_it_at_once(tmp_path: Path, straight: dict[str, Any], epoch: int) -> None:
    evaluations = iter(range(1, 4))

    def evaluate(model: Any) -> dict[str, float]:
        if next(evaluations) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
            try:
                time.sleep(0.1)
            except Exception:
                pytest.fail("what reads images takes every error for a broken image")
            pytest.fail("the evaluation went on")
        return toy_metric(model)

    stopped = train(toy_model(), ToyData(11), toy_settings(), tmp_path, evaluate)
    assert (stopped.end, stopped.signal, len(stopped.history)) == ("stopped", signal.SIGTERM, epoch - 1)
    assert run(tmp_path, resume=True).end == "finished"
    assert_same(outcome(tmp_path), straight)


def test_a_signal_that_comes_too_late_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report.epoch

    def epoch_and_signal(self: Report, history: Any, metrics: Any) -> None:
        report(self, history, metrics)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Report, "epoch", epoch_and_signal)
    result = run(tmp_path, epochs=1)
    assert (result.end, result.signal) == ("finished", None)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a SIGTERM's sender is not known")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: dict[str, Any], number: signal.Signals
) -> None:
    """As from a terminal or a scheduler: those that read the images are still needed for the step at hand."""

    def signal_all() -> None:
        readers = [str(reader.pid) for reader in multiprocessing.active_children()]
        assert len(readers) == 2
        subprocess.run(["kill", f"-{number.value}", *readers, str(os.getpid())], check=True)

    at_step(monkeypatch, 1, signal_all)
    assert run(tmp_path, workers=2).end == "stopped"
    monkeypatch.undo()
    assert run(tmp_path, resume=True, workers=2).end == "finished"
    assert_same(outcome(tmp_path), straight)


EXIT_WITH_WORKERS = """
import multiprocessing, sys
from toy_training import ToyData
from piip.data.batches import train_loader

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    batches = iter(train_loader(ToyData(40), batch_size=1, seed=0, epoch=0, workers=2))
    next(batches)
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_program_that_ends_with_workers_alive_does_not_wait_for_them(method: str, tmp_path: Path) -> None:
    """Python 3.14 forks them from a server of its own on Linux."""
    program = tmp_path / "program.py"
    program.write_text(EXIT_WITH_WORKERS)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(program), method]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=True, timeout=120)


def test_a_longer_run(tmp_path: Path) -> None:
    """A finished run goes on when it is given more epochs, and does nothing when not."""
    run(tmp_path, epochs=1)
    before = outcome(tmp_path)
    assert run(tmp_path, resume=True, epochs=1).end == "finished"
    assert_same(outcome(tmp_path), before)
    result = run(tmp_path, resume=True, epochs=2)
    assert [row["step"] for row in result.history] == [2, 4]
    lines = RunFolder(tmp_path).results.read_text().splitlines()
    assert len(lines) == 3


def test_mixed_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "straight", precision="bf16", epochs=2)
    at_step(monkeypatch, 2, crash)
    with pytest.raises(Crash):
        run(tmp_path / "resumed", precision="bf16", epochs=2)
    monkeypatch.undo()
    run(tmp_path / "resumed", resume=True, precision="bf16", epochs=2)
    assert_same(outcome(tmp_path / "resumed"), outcome(tmp_path / "straight"))


def test_kill_9(tmp_path: Path, straight: dict[str, Any]) -> None:
    """A process of its own, with workers, dies without warning after its second checkpoint."""
    checkpoint = RunFolder(tmp_path).checkpoint
    with subprocess.Popen([sys.executable, toy_file(), str(tmp_path), "2", "piip"]) as process:
        wait_for(lambda: checkpoint.with_name("last.previous.ckpt").exists(), process)
        process.kill()
    assert load_checkpoint(checkpoint)["position"]["step"] < 6
    run(tmp_path, resume=True, workers=2)
    assert_same(outcome(tmp_path), straight)


def toy_file() -> str:
    return str(Path(__file__).with_name("toy_training.py"))


def wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the process ended too early"
        assert time.monotonic() < end
        time.sleep(0.005)


def test_other_settings_or_data(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"last\.ckpt: cannot resume with other settings: lr \(was 0\.001, now 0\.1\)"):
        run(tmp_path, resume=True, lr=0.1)
    with pytest.raises(ValueError, match=r"4 batches per epoch .* there are 8: the data"):
        train(toy_model(), ToyData(22), toy_settings(epochs=2), tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"does not fit the model; 6 weights not of this model: head\.mask"):
        train(toy_model(masks=False), ToyData(11), toy_settings(epochs=2), tmp_path, resume=True)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint to resume from: .*last\.ckpt: not there"):
        run(tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()
