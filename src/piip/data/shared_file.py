"""Bytes in a file of the temporary folder that several processes of a machine have in memory once.

The file goes with the process that made it; what one that was killed has left is removed by the next.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from multiprocessing import context
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where nobody can open or remove a file that another has open
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".piip-shared-", ".bytes"
"""around eight random letters: no name that a person would give a file, since those left behind are removed"""
OLD = 60.0
"""seconds after which a file that nobody holds was left behind: before, it may be about to be held"""
_passing: ContextVar[bool] = ContextVar("_passing", default=False)


class SharedFile:
    """Some parts of a file, read into memory as they are looked at."""

    def __init__(self, name: str, lengths: Sequence[int]) -> None:
        """OSError where it is gone."""
        self.name, self.lengths = name, tuple(lengths)
        with open(name, "rb") as file:
            held = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if any(lengths) else memoryview(b"")
        ends = [sum(self.lengths[: number + 1]) for number in range(len(self.lengths))]
        self.parts = tuple(held[end - length : end] for end, length in zip(ends, self.lengths, strict=True))
        """the bytes"""


def passing() -> bool:
    """Whether what is pickled goes to another process of this machine, which can open a file of this one."""
    return _passing.get() or context.get_spawning_popen() is not None


@contextlib.contextmanager
def to_this_machine() -> Iterator[None]:
    """Inside, what is pickled stays on this machine, and lives no longer than this process."""
    token = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(token)


def shared(parts: Sequence[bytes | bytearray | memoryview]) -> SharedFile | None:
    """A new file with these parts, which goes with what is returned; None where there is no room."""
    _remove_left_behind(Path(tempfile.gettempdir()))
    try:
        handle, name = tempfile.mkstemp(SUFFIX, PREFIX)
    except OSError:
        return None
    file = open(handle, "wb")  # noqa: SIM115 - open as long as the object: it holds the lock
    try:
        _lock(file)
        for part in parts:
            file.write(part)
        file.flush()
        made = SharedFile(name, [len(part) for part in parts])
    except OSError:
        file.close()
        Path(name).unlink(missing_ok=True)
        return None
    weakref.finalize(made, _remove, file, name, os.getpid())
    return made


def _remove(file: IO[bytes], name: str, owner: int) -> None:
    """By the process that made it: a forked one has the same object."""
    file.close()
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            Path(name).unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_left_behind(folder: Path) -> None:
    """Files that no living process holds."""
    if fcntl is None:
        return
    for path in folder.glob(f"{PREFIX}{'?' * 8}{SUFFIX}"):
        with contextlib.suppress(OSError):  # held, or somebody else's
            if time.time() - path.stat().st_mtime > OLD:
                with path.open("rb") as file:
                    _lock(file)
                    path.unlink()
