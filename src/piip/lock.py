"""One program at a time in a folder of results."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

NAME = "run.lock"


class RunInUse(OSError):
    """Another process is at work in the folder."""


@contextmanager
def locked(folder: Path, work: str = "training") -> Iterator[None]:
    """Within, no other process can lock `folder`, which is made if need be. RunInUse if one has done so.

    `work`: what is done in such a folder, for the message.

    The system itself gives the lock back when its process dies, whatever it dies of. Processes that read images do not
    inherit it.
    """
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with _open_locked(path, work) as file:
        file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open_locked(path: Path, work: str) -> TextIOWrapper:
    """The file, locked and empty."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            owner = file.read(200).strip() or "another process"
            file.close()
            raise RunInUse(f"{path.parent}: a {work} is at work here ({owner}); wait for it or stop it") from error
        except OSError:  # a file system that cannot lock; better without than not at all
            pass
        # Whoever had the lock may have deleted the file between opening and locking.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate(0)
            return file
        file.close()
