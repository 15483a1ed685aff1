"""The state a training resumes from, safe against crashes, full disks and damaged files."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from piip.files import atomic_write, disk_is_full
from piip.training.shard_files import damage_of_shards

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """No usable checkpoint: what was tried, and why each was refused."""


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the newest is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors, numbers, texts, lists and dicts of these) and keep the checkpoint before it.

    At any moment, a crash included, `path` or its `previous_of` is complete. OSError if the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(state, file)
            if path.exists():
                os.replace(path, previous_of(path))
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as RuntimeError
        reason = "the disk is full" if disk_is_full(error) else str(error)
        before = (
            "the one before it is still there"
            if path.exists() or previous_of(path).exists()
            else "there is none from before"
        )
        raise OSError(f"{path}: the checkpoint could not be written ({reason}); {before}") from error


def load_checkpoint(path: Path, shards: Path | None = None) -> dict[str, Any]:
    """The newest checkpoint that is whole: `path`, or with a warning the one before it, which then takes its place.

    Shards that belong to one are looked for in the folder `shards`, if given.

    A damaged newest one is kept as `.damaged`. Raises CheckpointError where none is whole.
    """
    problems = []
    for candidate in (path, previous_of(path)):
        if problem := find_damage(candidate):
            problems.append(f"{candidate}: {problem}")
            continue
        try:
            state: dict[str, Any] = torch.load(candidate, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # whatever the unpickler meets in a file that is not ours
            problems.append(f"{candidate}: not a checkpoint of this package ({error})")
            continue
        if shards is not None and "shards" in state and (problem := damage_of_shards(state["shards"], shards)):
            problems.append(f"{candidate}: {problem}")
            continue
        if problems:
            logger.warning("%s; going back to the checkpoint before it", problems[0])
            # Else the next save would move the damaged one over the good one.
            if path.exists():
                os.replace(path, path.with_name(f"{path.name}.damaged"))
            os.replace(candidate, path)
        return state
    raise CheckpointError("no checkpoint to resume from: " + "; ".join(problems))


def find_damage(path: Path) -> str | None:
    """What is wrong with the file, or None: it must be a whole zip archive whose checksums are right.

    `torch.load` does not look at the checksums: a flipped bit would silently become a weight.
    """
    if not path.exists():
        return "not there"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds on damaged headers
        return f"cut off or damaged ({error})"
    return f"damaged in {damaged}" if damaged else None
