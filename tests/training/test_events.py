"""Callbacks, the time limit, the metric that decides, loggers."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import assert_same, outcome
from toy_training import ToyData, toy_config, toy_metric, toy_model, toy_settings

import piip
from piip.training import trackers
from piip.training.callbacks import Callback, Moment
from piip.training.checkpoint import load_checkpoint
from piip.training.folder import RunFolder
from piip.training.interrupt import Interrupted, StopRequest
from piip.training.loop import RunResult, is_better, train
from piip.training.trackers import Trackers
from piip.training.validation import check_metric


class Diary(Callback):
    """Stops after so many steps."""

    def __init__(self, steps: int | None = None) -> None:
        self.events: list[tuple[str, int, int]] = []
        self.steps = steps
        self.rows: list[dict[str, float]] = []

    def on_train_begin(self, moment: Moment) -> None:
        self.events.append(("train begin", moment.epoch, moment.step))

    def on_step_end(self, moment: Moment) -> None:
        assert {"loss", "lr", "grad_norm"} <= moment.values.keys()
        self.events.append(("step", moment.epoch, moment.step))
        if moment.step == self.steps:
            moment.stop()

    def on_epoch_end(self, moment: Moment) -> None:
        self.rows.append(moment.values)
        self.events.append(("epoch", moment.epoch, moment.step))

    def on_train_end(self, moment: Moment) -> None:
        assert moment.main_process
        assert moment.total_steps == 4
        self.events.append(("train end", moment.epoch, moment.step))


def run(folder: Path, *callbacks: Callback, resume: bool = False, **settings: Any) -> RunResult:
    chosen = toy_settings(**({"epochs": 2, "log": "none"} | settings))
    return train(toy_model(), ToyData(11), chosen, folder, toy_metric, resume=resume, callbacks=callbacks)


@pytest.mark.parametrize(
    ("given", "named"),
    [(Diary, "the class Diary"), (lambda moment: None, "function"), ({"on_step_end": print}, "dict")],
)
def test_what_is_no_callback_is_refused_before_anything_is_made(tmp_path: Path, given: Any, named: str) -> None:
    assert piip.Callback is Callback
    with pytest.raises(ValueError, match=f"callbacks: {named} is no callback: give instances of sub"):
        piip.PIIP(toy_config(), "cpu").train(tmp_path, 1, output=tmp_path / "runs", callbacks=[given])
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Diary, Path]:
    torch.set_num_threads(1)
    diary, folder = Diary(), tmp_path_factory.mktemp("straight")
    result = run(folder, diary)
    assert result.metric == "AP"
    return outcome(folder), diary, folder


def test_the_four_events(straight: tuple[dict[str, Any], Diary, Path]) -> None:
    _, diary, folder = straight
    steps = [("step", 1, 1), ("step", 1, 2), ("epoch", 1, 2), ("step", 2, 3), ("step", 2, 4), ("epoch", 2, 4)]
    assert diary.events == [("train begin", 0, 0), *steps, ("train end", 2, 4)]
    assert all({"AP", "loss", "epoch"} <= row.keys() for row in diary.rows)
    assert not (folder / "tensorboard").exists()
    assert (folder / "results.csv").is_file()


def test_a_callback_stops_and_a_resume_goes_on(straight: tuple[dict[str, Any], Diary, Path], tmp_path: Path) -> None:
    first, second = Diary(steps=2), Diary()
    stopped = run(tmp_path, first)
    assert (stopped.end, stopped.signal) == ("stopped", None)
    assert first.events[-1] == ("train end", 0, 2)  # without the evaluation, which a resume makes up for
    run(tmp_path, second, resume=True)
    assert second.events[:2] == [("train begin", 0, 2), ("epoch", 1, 2)]
    assert_same(outcome(tmp_path), straight[0])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_the_limit_leaves_time_for_the_step_and_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("piip.training.interrupt.time", clock)
    stop = StopRequest()
    stop.within(1000)  # 20 of which are kept for the end
    asked = []
    for _ in range(5):
        asked.append(stop.in_time(2))
        clock.now += 250
    assert asked == [False, False, True, True, True]  # 500 are gone, and two more would end after 980
    assert stop.time_is_up
    assert StopRequest().in_time(10) is False


def test_an_evaluation_ends_at_the_limit() -> None:
    stop = StopRequest()
    stop.within(0.2)
    with pytest.raises(Interrupted), stop.at_once():
        time.sleep(30)
    assert stop


def test_a_run_stops_in_time_and_resumes(straight: tuple[dict[str, Any], Diary, Path], tmp_path: Path) -> None:
    stopped = run(tmp_path, time_limit="0.001s")
    assert stopped.end == "stopped"
    assert load_checkpoint(RunFolder(tmp_path).checkpoint)["position"]["step"] == 1
    run(tmp_path, resume=True)
    assert_same(outcome(tmp_path), straight[0])


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("1h30m", 5400), ("90m", 5400), ("1.5s", 1.5), (20, 20)])
def test_times(text: Any, seconds: float) -> None:
    assert toy_settings(time_limit=text).time_limit == seconds


def test_what_is_no_time_no_logger_no_metric() -> None:
    with pytest.raises(ValueError, match="write 2h, 1h30m"):
        toy_settings(time_limit="two hours")
    with pytest.raises(ValueError, match="log"):
        toy_settings(log="tensorbord")
    with pytest.raises(ValueError, match="use one of box_AP"):
        check_metric(toy_config(), "box_ap")
    check_metric(toy_config(), "mask_AP50")
    check_metric(toy_config(), "val_loss")
    assert is_better(0.2, 0.1, "AP")
    assert is_better(0.1, 0.2, "val_loss")


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^log wandb: the library is not installed: pip install wandb$"):
        trackers.check_loggers(("wandb",))


class Noted:
    """Stands in for one of accelerate's trackers."""

    made: list[dict[str, Any]]

    def __init__(self, **arguments: Any) -> None:
        type(self).made.append(arguments)
        self.logged: list[tuple[dict[str, float], int]] = []

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.about = values

    def log(self, values: dict[str, float], step: int) -> None:
        if step > 1:
            raise ConnectionError("gone")
        self.logged.append((values, step))

    def finish(self) -> None:
        pass


def test_a_resumed_run_is_the_same_for_its_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import tracking

    kind = type("Kind", (Noted,), {"made": []})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", kind)
    monkeypatch.setattr(trackers, "check_loggers", lambda names: None)
    folder, notes = RunFolder(tmp_path / "first"), []
    folder.path.mkdir()
    for _ in range(2):
        ours = Trackers(("wandb",), folder, 0, {"lr": 1}, notes.append)
        ours.log({"step/loss": 1.0}, 1)
        assert ours.trackers["wandb"].logged == [({"step/loss": 1.0}, 1)]
    one, two = kind.made
    assert one == two
    assert (one["name"], one["run_name"], one["id"]) == (
        "first",
        "piip",
        json.loads(folder.loggers.read_text())["wandb"],
    )
    ours.log({}, 2)
    ours.log({}, 3)
    assert notes == ["wandb failed and gets no more numbers: ConnectionError: gone"]
    ours.close()


def test_runs_of_one_name_are_two_for_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import tracking

    kind = type("Kind", (Noted,), {"made": []})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", kind)
    monkeypatch.setattr(trackers, "check_loggers", lambda names: None)
    for place in ("one", "two", "one"):
        folder = RunFolder(tmp_path / place / "boards")
        folder.path.mkdir(parents=True, exist_ok=True)
        Trackers(("trackio",), folder, 0, {}, print).close()
    first, second, resumed = (arguments["name"] for arguments in kind.made)
    assert first == resumed != second
    assert first.startswith("boards-")
    assert second.startswith("boards-")


def test_a_logger_that_cannot_begin_ends_the_training_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import tracking

    def refuse(tracker: Noted) -> None:
        raise RuntimeError("no such server")

    ended = []

    def finish(tracker: Noted) -> None:
        ended.append(tracker)

    good = type("Good", (Noted,), {"made": [], "finish": finish})
    bad = type("Bad", (Noted,), {"made": [], "start": refuse})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", good)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", bad)
    monkeypatch.setattr(trackers, "check_loggers", lambda names: None)
    with pytest.raises(ValueError, match="^log wandb could not begin, RuntimeError: no such server. Mend it, or"):
        Trackers(("trackio", "wandb"), RunFolder(tmp_path), 0, {}, print)
    assert len(ended) == 1
