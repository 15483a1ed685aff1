"""What ended a training is said in one line, with what to change, and an exit code of its own."""

import errno
import sys
from pathlib import Path

import pytest
import torch
from toy_training import toy_settings

from piip import cli
from piip.training.failures import TrainingFailure, cause_of, explained
from piip.training.folder import RunFolder

SETTINGS = toy_settings(workers=2)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "out of memory: try checkpointing=true"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: try"),
        (MemoryError(), r"out of memory: .*fewer workers \(now 2\).*smaller batch_size \(now 3\).*image_size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), r"was killed.*workers \(now 2\)"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "was killed"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
                         "workers are out of shared memory"),
            "shared memory: .*--shm-size",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (LookupError("what?\nmore"), r"unforeseen LookupError: what\?\. There"),
    ],
)  # fmt: skip
def test_causes(error: Exception, cause: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailure, match=cause) as caught, explained(RunFolder(tmp_path), SETTINGS):
        raise error
    assert "\n" not in str(caught.value)
    assert "There is no checkpoint yet" in str(caught.value)
    assert "Traceback" in (tmp_path / "error.log").read_text()
    assert cause_of(error, SETTINGS) in str(caught.value)


def test_the_way_on_is_named_where_there_is_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.prepare(resume=False)
    folder.checkpoint.touch()
    message = f"go on from the last checkpoint: piip train --resume {tmp_path}"
    with pytest.raises(TrainingFailure, match=message), explained(folder, SETTINGS):
        raise MemoryError


@pytest.mark.parametrize("error", [ValueError("x"), FloatingPointError("x"), FileNotFoundError("x"), ImportError("x")])
def test_what_says_itself_what_is_wrong_passes(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error), match="^x$"), explained(RunFolder(tmp_path), SETTINGS):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise TrainingFailure("out of memory: try less")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["piip"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3
    assert "Error: out of memory: try less" in capsys.readouterr().err
