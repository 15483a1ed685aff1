"""How many processes a command starts, who of them speaks, and what it means that another is gone."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from piip import processes
from piip.training import launch, peers
from piip.training.accelerator import check_launcher
from piip.training.failures import TrainingFailure
from piip.training.interrupt import StopRequest


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "TORCHELASTIC_ERROR_FILE", launch.FOLDER):
        monkeypatch.delenv(name, raising=False)


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_processes_that_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 0)
    assert launch.wanted(2, None, None) == (2, {})
    assert launch.wanted(1, None, None) is None
    with_gpus(monkeypatch, 4)
    assert launch.wanted(None, "3,1", None) == (2, {"CUDA_VISIBLE_DEVICES": "3,1"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert launch.wanted(None, "1", None) == (1, {"CUDA_VISIBLE_DEVICES": "7"})
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.wanted(2, None, None) is None, "this is one of them"
    with pytest.raises(ValueError, match="4 processes wanted, but the launcher started 2"):
        launch.wanted(4, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, None, None), "at least 1"),
        ((4, None, None), "4 processes, but 2 GPUs"),
        ((None, "0,2", None), "different GPUs.* 0 to 1"),
        ((None, "0,0", None), "different GPUs"),
        ((3, "0,1", None), "3 processes for 2 devices"),
        ((None, "0,1", "cpu"), "give one of the two"),
    ],
)
def test_what_this_machine_cannot_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[int | None, str | None, str | None], message: str
) -> None:
    with_gpus(monkeypatch, 2)
    with pytest.raises(ValueError, match=message):
        launch.wanted(*arguments)


def test_accelerate_s_lost_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def started_as(*words: str) -> None:
        monkeypatch.setattr(Path, "read_bytes", lambda path: b"\0".join(word.encode() for word in words))

    started_as("accelerate", "launch", "--num_processes", "2", "--cpu", "train.py")
    check_launcher()  # not by accelerate
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    with pytest.raises(ValueError, match="piip train --processes 2"):
        check_launcher()
    started_as("accelerate", "launch", "--num-processes=3", "train.py")
    with pytest.raises(ValueError, match="--processes 3"):
        check_launcher()
    started_as("accelerate", "launch", "--num_processes", "1", "train.py")
    check_launcher()


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Connection closed by peer [127.0.0.1]:21427"
SLOW = "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 6000ms for recv"


def test_what_means_that_another_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.lost(RuntimeError(GLOO)) is None, "alone there is no other"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "is gone" in (peers.lost(RuntimeError(GLOO)) or "")
    assert "silent for 6 minutes" in (peers.lost(RuntimeError(SLOW), 6.0) or "")
    assert peers.lost(RuntimeError("shapes cannot be multiplied")) is None
    with pytest.raises(peers.PeersLost, match=r"is gone.*: resume"), peers.watched("So: resume", 30.0):
        raise RuntimeError(GLOO)
    with pytest.raises(ZeroDivisionError), peers.watched("So: resume", 30.0):
        raise ZeroDivisionError


def test_one_process_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert peers.may_speak(ValueError(), "wrong")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(launch.FOLDER, str(tmp_path))
    assert not peers.may_speak(peers.PeersLost(), "gone"), "the launcher may know why"
    assert (tmp_path / launch.LOST).read_text() == "gone"
    assert [peers.may_speak(error, "wrong") for error in (ValueError(), TrainingFailure())] == [True, False]
    monkeypatch.delenv(launch.FOLDER)
    (tmp_path / "attempt_0" / "1").mkdir(parents=True)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_0" / "1" / "error.json"))
    assert peers.may_speak(peers.PeersLost(), "gone"), "under torchrun nobody else says it"
    assert [peers.may_speak(ValueError(), "wrong") for _ in range(2)] == [True, False]
    assert not peers.may_speak(peers.PeersLost(), "gone")


def test_who_was_killed_could_not_say_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(launch.FOLDER, str(tmp_path))
    with peers.watched("To go on: piip train --resume RUN", 30.0):
        pass
    assert launch._told({0: -signal.SIGTERM, 1: -signal.SIGKILL}, tmp_path) == 137
    assert "process 1 was killed by signal 9 (SIGKILL)" in (said := capsys.readouterr().err)
    assert said.endswith("runs out. To go on: piip train --resume RUN\n")


def test_who_is_left_behind_by_the_launcher_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone = StopRequest()
    monkeypatch.setenv(launch.FOLDER, str(tmp_path))
    request = StopRequest()
    assert not request.in_time(1)
    monkeypatch.setattr("os.getppid", lambda: 1)
    assert not alone.in_time(1)
    assert request.in_time(1)
    assert request.signal == signal.SIGTERM


def test_alone_every_question_has_a_plain_answer() -> None:
    device = torch.device("cpu")
    assert (processes.count(), processes.rank(), processes.launched()) == (1, 0, 1)
    assert (processes.mean_count(0, device, least=1), processes.largest([3, 4], device)) == (1, [3, 4])
    assert processes.found_by_all("mine") == ["mine"]
    with processes.stoppable(lambda: True), pytest.raises(processes.StoppedTogether):
        processes.found_by_all(list(processes.until_asked([1, 2])))
    assert list(processes.until_asked([1, 2])) == [1, 2]


def test_who_is_started_again_meets_the_others_of_the_same_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher's store still has the addresses of the processes before."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, 1, is_master=True)
    store.set("0/cpu/rank_0", "an old address")
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in (environment | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    wait = timedelta(seconds=20)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert processes._place_of_this_attempt(wait) == {}
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    place = processes._place_of_this_attempt(wait)
    assert (place["rank"], place["world_size"]) == (0, 1)
    assert not place["store"].check(["0/cpu/rank_0"])
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert processes._place_of_this_attempt(wait) == {}, "the launchers of two machines may count otherwise"


LAUNCHER = "import sys; from piip.training import launch; sys.exit(launch.run(sys.argv[1:], 2))"
WORKER = """
import sys
sys.path.insert(0, {here!r})
import toy_training
from piip import cli
cli.app = lambda: toy_training.main({folder!r}, "0", "long")
cli.main()
"""


@pytest.mark.slow  # three processes that import everything
@pytest.mark.parametrize(
    ("number", "whom", "code", "said"),
    [
        (signal.SIGTERM, "launcher", 143, "and saved; resume"),
        (signal.SIGINT, "launcher", 130, "and saved; resume"),
        (signal.SIGKILL, "launcher", -9, "and saved; resume"),
        (signal.SIGKILL, "process", 137, "process 1 was killed by signal 9"),
        (signal.SIGSTOP, "process", 3, "silent for 0.1 minutes"),
    ],
)
def test_a_launch_ends_with_one_line(tmp_path: Path, number: signal.Signals, whom: str, code: int, said: str) -> None:
    worker = WORKER.format(here=str(Path(__file__).parent), folder=str(tmp_path / "run"))
    command = [sys.executable, "-c", LAUNCHER, "-c", worker]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "weights" / "last.ckpt").exists():
        assert started.poll() is None, started.communicate()
        time.sleep(0.2)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    os.kill(started.pid if whom == "launcher" else int(children[1]), number)
    _, error = started.communicate(timeout=300)
    assert started.returncode == code, error
    assert error.count(said) == 1, error
    assert error.count("Error:") == (whom == "process")
    assert "Traceback" not in error
