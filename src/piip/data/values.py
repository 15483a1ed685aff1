"""Numbers and ids out of JSON, where anything may stand in their place."""

from __future__ import annotations

import math
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
