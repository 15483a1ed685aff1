"""What a folder of results holds from before, for a prediction that goes on where another one was ended."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piip.files import write_json
from piip.prediction.listing import Paths

RUN = "run.json"
"""what a prediction was told; one that goes on must be told the same"""
FREE = frozenset({"batch_size", "workers"})
"""options that may be others, since results do not depend on them"""


@dataclass
class Earlier:
    """What was done before."""

    images: int = 0
    objects: int | None = None
    paths: Counter[str] = field(default_factory=Counter)
    """of the images, each as often as it was done"""
    pictures: set[str] = field(default_factory=set)
    """names of their pictures, without the ending"""

    def rest_of(self, images: Paths) -> Paths:
        """The images that were not done."""
        done = self.paths.copy()
        rest = []
        for name in images.names:
            if done[name] > 0:
                done[name] -= 1
            else:
                rest.append(name)
        return Paths(rest)


def take_up(folder: Path, further_lists: tuple[str, ...]) -> Earlier:
    """Read what was done, and cut off what a kill left unfinished: half a line, entries of an image without its line.

    Raises:
        ValueError: a line, other than the last, that is none of these files.
    """
    earlier = Earlier()
    last = 0

    def note(entry: dict[str, Any]) -> bool:
        nonlocal last
        last = entry["id"]
        earlier.images += 1
        earlier.paths[str(entry["path"])] += 1
        if "objects" in entry:
            earlier.objects = (earlier.objects or 0) + len(entry["objects"])
        if name := entry.get("picture") or entry.get("mask"):
            earlier.pictures.add(Path(name).stem)
        return True

    _keep(folder / "predictions.jsonl", note)
    for name in further_lists:
        _keep(folder / f"{name}.jsonl", lambda entry: bool(entry["image_id"] <= last))
    return earlier


def check_same(folder: Path, told: dict[str, Any]) -> None:
    """Write what a new prediction is told, or compare it with what the earlier one in `folder` was.

    Raises:
        ValueError: something differs that results depend on.
    """
    path = folder / RUN
    if not path.exists():
        write_json(path, told, indent=1)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(told))
    changed = [
        f"{name} (was {before.get(name)}, now {now.get(name)})"
        for name in sorted({*before, *now} - FREE)
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise ValueError(f"{folder} holds a prediction with other settings: {', '.join(changed)}; "
                         "go on with the same ones, or choose another folder")  # fmt: skip


def _keep(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Go through the lines of a file as far as they are whole and `keep` says so; what is behind is cut off."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        for number, (line, behind) in enumerate(_with_ends(file), 1):
            try:
                whole = line.endswith(b"\n") and keep(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                if file.readline():  # not the last
                    raise ValueError(f"{path}, line {number}: no line of results ({error})") from error
                whole = False
            if not whole:
                break
            end = behind
    os.truncate(path, end)


def _with_ends(file: Any) -> Iterator[tuple[bytes, int]]:
    end = 0
    while line := file.readline():
        end += len(line)
        yield line, end
