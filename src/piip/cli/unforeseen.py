"""Errors that nobody foresaw, in one line, with the traceback in a file of its own."""

from __future__ import annotations

import os
import tempfile
import traceback

EXIT_CODE = 4


def explained(error: Exception) -> str:
    """What went wrong, in one line that names the file with the details."""
    if isinstance(error, MemoryError):
        cause = "out of memory: try smaller images, or fewer at once"
    elif isinstance(error, RecursionError):
        cause = "the input is nested too deeply"
    else:
        first = next(iter(str(error).strip().splitlines()), "no message")
        cause = f"unforeseen {type(error).__name__}: {first[:300]}"
    try:
        return f"{cause}. Details are in {_log(error)}"
    except OSError as other:  # no room or no right to write
        return f"{cause} (no log: {other.strerror or other})"


def _log(error: Exception) -> str:
    """A new file with the traceback."""
    handle, path = tempfile.mkstemp(prefix="piip-error-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(traceback.format_exception(error)))
    return path
