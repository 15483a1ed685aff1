"""How metrics say that there are images which they are without."""

from __future__ import annotations

from collections.abc import Sequence


def missed(unreadable: Sequence[str]) -> dict[str, list[str]]:
    """For their JSON: nothing, where nothing is missing."""
    return {"unreadable": list(unreadable)} if unreadable else {}


def caption(unreadable: Sequence[str]) -> str | None:
    """For their table."""
    count = len(unreadable)
    return f"without {count} image{'s' * (count > 1)} that could not be read" if count else None
