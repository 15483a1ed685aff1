"""After a failure `torchrun --max-restarts` starts all processes again: they go on with the run that they began."""

from __future__ import annotations

import os
import socket
from pathlib import Path

MARK = ".launch"
"""a file in a run's folder: which launch began it"""
_taken: set[Path] = set()
"""by this process: a script may train several times"""


def launch() -> str | None:
    """What is the same before and after a restart and differs from every other launch; None without torchrun."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    if run is None:
        return None
    agent = os.getppid()  # outlives the processes that it restarts
    try:
        began = Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        began = ""
    return " ".join((run, socket.gethostname(), str(agent), began))


def begun_before(root: str | Path, task: str, name: str) -> Path | None:
    """The folder of this launch's run `name` from before its restart, if it was restarted."""
    own = launch()
    if own is None or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return None
    number = 1
    while (path := Path(root) / task / (name if number == 1 else f"{name}-{number}")).is_dir():
        mark = path / MARK
        if path not in _taken and mark.is_file() and mark.read_text() == own:
            _taken.add(path)
            return path
        number += 1
    return None


def mark_as_begun(folder: Path) -> Path:
    """Leave a mark in a new run's folder that `begun_before` knows again; returns the folder."""
    if (own := launch()) is not None:
        (folder / MARK).write_text(own)
        _taken.add(folder)
    return folder
