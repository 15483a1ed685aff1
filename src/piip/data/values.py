"""Numbers, names and ids out of JSON, where anything may stand in their place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def as_number(value: Any) -> float | None:
    """A finite float, from a number or from text that holds one; None for everything else.

    >>> as_number("12.5"), as_number(True), as_number(float("nan"))
    (12.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_id(value: Any) -> int | None:
    """An integer id, from an integer, an integral float or text that holds one; None for everything else.

    >>> as_id(7), as_id("007"), as_id(7.5), as_id("img7")
    (7, 7, None, None)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    number = as_number(value)
    if number is None or number != int(number) or abs(number) > 2**53:
        return None
    return int(number)


def as_name(value: Any) -> str | None:
    """A name as it is written in the file, from text or from a number; None for everything else, and for no text.

    >>> as_name("cat"), as_name(7), as_name(1.5), as_name(" "), as_name(["cat"])
    ('cat', '7', '1.5', None, None)
    """
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value) if isinstance(value, int | float | str) else ""
    return text if text.strip() else None


class Ids:
    """Integers for whatever the records of a file have for ids: integers stay, words get numbers after them.

    >>> ids = Ids([3, "img7", "12", "img8"])
    >>> ids("img8"), ids(3), ids("12"), ids("img9"), ids(None)
    (14, 3, 12, None, None)
    """

    def __init__(self, given: Iterable[Any]) -> None:
        given = list(given)
        numbers = [number for value in given if (number := as_id(value)) is not None]
        words = dict.fromkeys(
            value for value in given if isinstance(value, str) and value.strip() and as_number(value) is None
        )
        self.words = {word: number for number, word in enumerate(words, start=max(numbers, default=0) + 1)}

    def __call__(self, value: Any) -> int | None:
        """The number of an id; None for what is none."""
        number = as_id(value)
        return self.words.get(value) if number is None and isinstance(value, str) else number
