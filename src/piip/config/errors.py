"""What is wrong with a description, in words for whoever wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

from piip.config.heads import TASKS

KINDS = {"augmentation": tuple(sorted(set(TASKS.values()))), "head": tuple(TASKS)}
"""by the place that has one: parts of pydantic's places that nobody wrote"""
SHOWN = 40
"""characters of a wrong value, at most"""


def problems(error: ValidationError, known: Iterable[str] = ()) -> str:
    """What pydantic found, in one line: each place and what is wrong there; `known` are names to propose."""
    found = []
    for item in error.errors():
        place = ".".join(str(part) for index, part in enumerate(item["loc"]) if not _is_kind(item["loc"], index))
        message = item["msg"].removeprefix("Value error, ").split(", unable to parse")[0]
        if item["type"] == "extra_forbidden":
            near = _near(place, known)
            message = "there is no such setting" + (f"; did you mean {' or '.join(near)}?" if near else "")
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] != "value_error" and isinstance(item["input"], bool | int | float | str):
            message += f", not {item['input']!r:.{SHOWN}}"
        found.append(f"{place}: {message}" if place else message)
    return "; ".join(found)


def _near(place: str, known: Iterable[str]) -> list[str]:
    """The known names most like the wrong one: of the same place, or else of any."""
    prefix, _, wrong = place.rpartition(".")
    parts = [(name, *name.rpartition(".")) for name in known]
    for homes in ((prefix,), {home for _, home, _, _ in parts}):
        last = {part: name for name, home, _, part in parts if home in homes}
        if near := difflib.get_close_matches(wrong, last, n=3):
            return [last[part] for part in near]
    return []


def _is_kind(place: tuple[int | str, ...], index: int) -> bool:
    """Whether a part of a place only says of which kind the part before is."""
    return index > 0 and place[index] in KINDS.get(str(place[index - 1]), ())
