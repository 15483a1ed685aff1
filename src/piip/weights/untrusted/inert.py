"""What stands in for things that are not built: a class's name, and an object with the data that were pickled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Name:
    """The name of a class or function. Nothing of that name is imported."""

    module: str
    qualified: str

    def __str__(self) -> str:
        return f"{self.module}.{self.qualified}"


@dataclass(eq=False)
class Inert:
    """An object of an unknown class: the data that its constructor and its `__setstate__` would have got."""

    of: Name
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list, repr=False)
    """of a list's or a set's subclass"""
    values: dict[Any, Any] = field(default_factory=dict, repr=False)
    """of a dictionary's subclass"""

    def __repr__(self) -> str:  # not of what it holds, which may be large or hold itself
        return f"<{self.of}>"


def checked_key(key: Any, depth: int = 2) -> Any:
    """`key` if hashing it is cheap: tuples in tuples in tuples can take forever to hash."""
    if key is None or isinstance(key, str | bytes | int | float | complex | Name):
        return key
    if isinstance(key, Inert):  # hashed by identity
        return key
    if isinstance(key, tuple | frozenset) and depth and len(key) < 1000:
        for part in key:
            checked_key(part, depth - 1)
        return key
    raise TypeError(f"a {type(key).__name__} as a key")
