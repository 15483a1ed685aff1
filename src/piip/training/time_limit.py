"""How long a training may take: told as text, kept in seconds."""

from __future__ import annotations

import re

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
FORM = re.compile(r"(?:\d+(?:\.\d+)?[hms])+")


def seconds_of(value: object) -> object:
    """ "2h", "1h30m", "90m" or "45s" in seconds; anything else as it is. ValueError for other texts.

    >>> seconds_of("1h30m")
    5400.0
    """
    if not isinstance(value, str):
        return value
    if not FORM.fullmatch(value):
        raise ValueError(f"{value!r} is no time: write 2h, 1h30m, 90m or 45s")
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([hms])", value))
