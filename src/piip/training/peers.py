"""The other processes of a training: whether they see the same folder, whether they are lost, and who speaks."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from piip import processes
from piip.training.failures import TrainingFailure
from piip.training.launch import FOLDER, HINT, LOST, SAID

SHARED_SECONDS = 20.0
"""after which a file that the main process wrote should be seen everywhere: network file systems take their time"""
SILENT = ("timed out waiting", "watchdog caught collective operation timeout", "socket timeout", "wait timeout")
GONE = ("connection closed by peer", "connection reset by peer", "connection refused", "remote process exited",
        "broken pipe", "recvvalue failed", "sendbytes failed", "recvbytes failed", "read error")  # fmt: skip
"""of messages of gloo, NCCL and the store, lower case"""


class PeersLost(TrainingFailure):
    """Nothing is wrong in this process but that another one is gone or silent."""


@contextmanager
def watched(hint: str, minutes: float) -> Iterator[None]:
    """Turn errors that only mean that another process is gone into PeersLost, with a `hint` of what to do."""
    if FOLDER in os.environ and processes.is_main():
        with suppress(OSError):
            (Path(os.environ[FOLDER]) / HINT).write_text(hint, encoding="utf-8")  # for the launcher, if one is killed
    try:
        yield
    except Exception as error:
        if (text := lost(error, minutes)) is None:
            raise
        raise PeersLost(f"{text}. {hint}") from error


def lost(error: BaseException, minutes: float | None = None) -> str | None:
    """One line where an error only means that another process is gone, or silent for so long; None for all others."""
    if processes.launched() == 1:
        return None
    text, kinds = str(error).lower(), {kind.__name__ for kind in type(error).__mro__}
    if not ("gloo" in text or "nccl" in text or "DistError" in kinds or any(part in text for part in GONE[:2])):
        return None
    if any(part in text for part in SILENT):
        time_ = "too long" if minutes is None else f"{minutes:g} minutes"
        return (f"another process of this training has been silent for {time_}: it was stopped or hangs (the setting "
                "peer_minutes says how long one waits)")  # fmt: skip
    if any(part in text for part in GONE):
        return "another process of this training is gone; its own message, or its machine's, says why"
    return None


def may_speak(error: BaseException, text: str) -> bool:
    """Whether this process is the one that says what is wrong: of several, the first whose error is its own."""
    folder = _launch_folder() if processes.launched() > 1 else None
    if folder is None:
        return True
    if isinstance(error, PeersLost):
        if FOLDER in os.environ:
            (folder / LOST).write_text(text, encoding="utf-8")  # the launcher may know better
            return False
        return not (folder / SAID).exists()
    try:
        (folder / SAID).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def _launch_folder() -> Path | None:
    """One that the processes of this machine share, of this launch (and restart) alone."""
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER])
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # torchrun's, .../attempt_0/RANK/error.json
    return Path(file).parent.parent if file and Path(file).parent.parent.is_dir() else None


def require_shared(folder: Path) -> None:
    """ValueError, on every process, where not all of them see the main one's `folder`."""
    if processes.count() == 1:
        return
    name = processes.from_main(f".shared-{uuid.uuid4().hex}")
    if processes.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    processes.from_main(None)
    end = time.monotonic() + SHARED_SECONDS
    while not (seen := (folder / name).exists()) and time.monotonic() < end:
        time.sleep(0.2)
    blind = processes.from_main([rank for rank, sees in enumerate(processes.gathered(seen)) if not sees])
    if processes.rank() == 0:
        (folder / name).unlink(missing_ok=True)
    if blind:
        listed = ", ".join(map(str, blind))
        raise ValueError(f"{folder}: the processes {listed} do not see what process 0 writes there; all machines must "
                         "share the run's folder: give --output on a file system that they share")  # fmt: skip
