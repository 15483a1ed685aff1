"""What is wrong with a description, in words for whoever wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

KINDS = ("detection", "segmentation", "classification")
"""of augmentation"""


def problems(error: ValidationError, known: Iterable[str] = ()) -> str:
    """What pydantic found, in one line: each place and what is wrong there; `known` are names to propose."""
    found = []
    for item in error.errors():
        place = ".".join(str(part) for index, part in enumerate(item["loc"]) if not _is_kind(item["loc"], index))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place, known, n=3)
            message = "there is no such setting" + (f"; did you mean {' or '.join(near)}?" if near else "")
        found.append(f"{place}: {message}" if place else message)
    return "; ".join(found)


def _is_kind(place: tuple[int | str, ...], index: int) -> bool:
    """Whether a part of a place only says which kind of augmentation it is, which nobody wrote."""
    return index > 0 and place[index - 1] == "augmentation" and place[index] in KINDS
