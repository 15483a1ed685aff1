"""What ended a training that nobody foresaw, in one line with what to change; the traceback goes into a file."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from piip.files import disk_is_full

if TYPE_CHECKING:
    from piip.training.folder import RunFolder
    from piip.training.settings import Settings

EXIT_CODE = 3
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""in the messages of torch's own errors, lower case"""


class TrainingFailure(RuntimeError):
    """A training ended by something that is no mistake in its settings or data."""


@contextmanager
def explained(folder: RunFolder, settings: Settings) -> Iterator[None]:
    """Turn unforeseen errors into TrainingFailure; errors that say themselves what is wrong with the input pass."""
    try:
        yield
    except (ValueError, FloatingPointError, ImportError, TrainingFailure):
        raise
    except OSError as error:
        if not disk_is_full(error):
            raise
        raise _failure(error, folder, settings) from error
    except Exception as error:
        raise _failure(error, folder, settings) from error


def cause_of(error: BaseException, settings: Settings) -> str:
    """In one line."""
    text = str(error).lower()
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if disk_is_full(error):
        return f"the disk is full: {_first_line(error)}"
    if "dataloader worker" in text and ("bus error" in text or "shared memory" in text):
        return (
            "the processes that read images ran out of shared memory: give the container more (--shm-size), or "
            f"train with fewer workers (now {settings.workers}; 0 needs none)"
        )
    if "dataloader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        return (
            "a process that reads images was killed, as the system does when memory runs out: train with fewer "
            f"workers (now {settings.workers}), or smaller images"
        )
    if {"OutOfMemoryError", "MemoryError"} & kinds or any(part in text for part in OUT_OF_MEMORY):
        return f"out of memory: {_less_memory(settings)}"
    return f"unforeseen {type(error).__name__}: {_first_line(error)}"


def _less_memory(settings: Settings) -> str:
    """What to change, before all what changes no result."""
    advice = [] if settings.checkpointing else ["checkpointing=true (a third slower)"]
    if settings.workers:
        advice.append(f"fewer workers (now {settings.workers}) if it is not the GPU's memory")
    if settings.batch_size > 1:
        advice.append(f"in a new run a smaller batch_size (now {settings.batch_size}), with more grad_accumulation")
    advice.append("in a new run a smaller image_size")
    return "try " + ", ".join(advice)


def _failure(error: BaseException, folder: RunFolder, settings: Settings) -> TrainingFailure:
    text = cause_of(error, settings)
    if folder.checkpoint.exists():
        text += f". To go on from the last checkpoint: piip train --resume {folder.path}"
    else:
        text += ". There is no checkpoint yet"
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.error.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as other:  # a full disk, for example
        return TrainingFailure(f"{text} (no log: {errno.errorcode.get(other.errno or 0, other)})")
    return TrainingFailure(f"{text}. Details are in {folder.error}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")
