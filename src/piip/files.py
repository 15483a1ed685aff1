"""Files that are written completely or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"
"""in the names of files that are being written"""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which becomes `path` if the block ends without an exception.

    After a crash or a power cut `path` holds the old content or the new, never a part.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY}{uuid.uuid4().hex[:8]}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files private
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary_files(folder: Path) -> list[Path]:
    """Delete what interrupted writes left in `folder`; returns the deleted paths."""
    stale = sorted(folder.glob(f"*{TEMPORARY}*"))
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write plain values as UTF-8; makes the folder. ValueError for NaN and infinite numbers, which are no JSON."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Wait until `path` (a file or folder) is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
