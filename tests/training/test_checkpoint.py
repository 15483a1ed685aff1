"""Whatever happens while a checkpoint is written or afterwards, there is a whole one to go on from."""

import errno
import io
import logging
import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from piip.files import remove_temporary_files
from piip.training import checkpoint
from piip.training.checkpoint import CheckpointError, load_checkpoint, previous_of, save_checkpoint

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": {"a": torch.full((50, 50), float(step))}, "rows": [{"loss": 0.5}], "none": None}


def is_whole(loaded: dict[str, Any]) -> bool:
    return bool((loaded["weights"]["a"] == loaded["step"]).all())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "weights" / "last.ckpt"
    save_checkpoint(state(1), path)
    save_checkpoint(state(2), path)
    loaded = load_checkpoint(path)
    assert loaded["step"] == 2
    assert is_whole(loaded)
    assert loaded["rows"] == [{"loss": 0.5}]
    assert load_checkpoint(previous_of(path))["step"] == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.ckpt", "last.previous.ckpt"]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.ckpt: not there"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_any_damage_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """20 places: cut off there, or one byte of a weight changed. torch.load alone would accept most of the latter."""
    path = tmp_path / "last.ckpt"
    for place in range(20):
        for damage in ("cut", "flip"):
            save_checkpoint(state(1), path)
            save_checkpoint(state(2), path)
            content = bytearray(path.read_bytes())
            offset = len(content) * place // 20
            weights = content.index(torch.full((50, 50), 2.0).numpy().tobytes())
            if damage == "flip":
                content[weights + 50 * 50 * 4 * place // 20] ^= 0x40
            path.write_bytes(content[:offset] if damage == "cut" else content)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                loaded = load_checkpoint(path)
            assert loaded["step"] == 1, (place, damage)
            assert is_whole(loaded)
            assert "last.ckpt: " in caplog.text


def test_a_save_after_a_fallback_keeps_the_good_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(state(1), path)
    save_checkpoint(state(2), path)
    path.write_bytes(b"damaged")
    assert load_checkpoint(path)["step"] == 1
    save_checkpoint(state(3), path)
    assert load_checkpoint(path)["step"] == 3
    assert load_checkpoint(previous_of(path))["step"] == 1
    assert (tmp_path / "last.ckpt.damaged").read_bytes() == b"damaged"


def test_both_damaged(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"")
    previous_of(path).write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: cut off.*last\.previous\.ckpt: cut off"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"step": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (RuntimeError("write failed"), "write failed"),
    ],
)
def test_a_failing_disk_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(state(1), path)

    def fail(state: Any, file: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(OSError, match=rf"last\.ckpt: the checkpoint could not be written \({reason}\).*still there"):
        save_checkpoint(state(2), path)
    with pytest.raises(OSError, match=rf"first\.ckpt: .*\({reason}\); there is none from before"):
        save_checkpoint(state(2), tmp_path / "first.ckpt")
    monkeypatch.undo()
    assert load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@needs_fork
def test_a_really_full_disk(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow beyond a limit, as a full disk would."""
    path = tmp_path / "last.ckpt"
    save_checkpoint(state(1), path)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            save_checkpoint(state(2), path)
        except OSError as error:
            os._exit(42 if "last.ckpt: the checkpoint could not be written" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@needs_fork
def test_kill_9_at_any_moment_of_a_write(tmp_path: Path) -> None:
    """At most the checkpoint that was being written is lost, and nothing stays behind."""
    path = tmp_path / "last.ckpt"
    moments = random.Random(0)
    in_write = 0
    step = 0
    for _ in range(40):
        receive, report = os.pipe()
        child = os.fork()
        if child == 0:
            save_slowly_forever(path, step, report)
        os.close(report)
        with os.fdopen(receive, "rb") as pipe:
            events = pipe.read(moments.randrange(1, 25))  # waits for so many pieces, renames and finished saves
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            events += pipe.read()
        step += events.count(b".")
        in_write += bool(remove_temporary_files(tmp_path))
        if step:
            loaded = load_checkpoint(path)
            assert loaded["step"] in (step, step + 1)  # the kill may fall between the write and its report
            assert is_whole(loaded)
            step = loaded["step"]
        assert {file.name for file in tmp_path.iterdir()} <= {"last.ckpt", "last.previous.ckpt"}
    assert step > 10
    assert in_write > 10


def save_slowly_forever(path: Path, step: int, report: int) -> None:
    """In the child process: checkpoints in small pieces, each piece and rename reported, with pauses between."""
    save, replace = torch.save, os.replace

    def tell(event: bytes) -> None:
        os.write(report, event)
        time.sleep(0.002)

    def slow_save(state: Any, file: Any) -> None:
        whole = io.BytesIO()
        save(state, whole)
        content = whole.getvalue()
        for start in range(0, len(content), 2000):
            file.write(content[start : start + 2000])
            file.flush()
            tell(b"w")

    def slow_replace(source: Path, target: Path) -> None:
        tell(b"r")
        replace(source, target)
        tell(b"r")

    torch.save, os.replace = slow_save, slow_replace  # type: ignore[assignment]
    try:
        while True:
            step += 1
            save_checkpoint(state(step), path)
            tell(b".")
    finally:
        os._exit(1)  # never back into pytest
