"""State-dict conversion as a table that is read in both directions and is strict in both.

A table is a list of rules `(pattern, replacement)` from our keys to the other layout's. Applied to the keys a module
really has, it gives a one-to-one map; whatever the other side holds beyond it, or lacks, is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from piip.console import shortened

Replacement = str | Callable[[re.Match[str]], str]
Rule = tuple[str, Replacement]
SHOWN_KEYS = 8


class KeyMismatch(ValueError):
    """The keys or shapes of a state dict are not those of the module it is meant for."""


def key_map(ours: Iterable[str], rules: Sequence[Rule]) -> dict[str, str]:
    """Each of our keys with its name in the other layout, by the first rule whose pattern matches all of the key.

    Raises KeyMismatch for a key that no rule covers and for two keys that would get one name.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    mapped: dict[str, str] = {}
    for key in ours:
        for pattern, replacement in compiled:
            if match := pattern.fullmatch(key):
                mapped[key] = match.expand(replacement) if isinstance(replacement, str) else replacement(match)
                break
        else:
            raise KeyMismatch(f"no conversion rule for {key!r}")
    if len(set(mapped.values())) != len(mapped):
        raise KeyMismatch("two keys convert to the same name: the conversion table is ambiguous")
    return mapped


def convert(
    theirs: Mapping[str, Tensor], mapping: Mapping[str, str], shapes: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """`theirs` under our keys; `shapes` are those our module expects.

    Raises KeyMismatch that lists the missing and unknown keys and the wrong shapes, if there are any.
    """
    missing = [name for name in mapping.values() if name not in theirs]
    unknown = sorted(set(theirs) - set(mapping.values()))
    wrong = [
        f"{name} {tuple(theirs[name].shape)} instead of {tuple(shapes[ours])}"
        for ours, name in mapping.items()
        if name in theirs and tuple(theirs[name].shape) != tuple(shapes[ours])
    ]
    if missing or unknown or wrong:
        raise KeyMismatch(_report(missing, unknown, wrong))
    return {ours: theirs[name] for ours, name in mapping.items()}


def _report(missing: Sequence[str], unknown: Sequence[str], wrong: Sequence[str]) -> str:
    parts = [
        f"{len(keys)} {what}: {shortened(keys, SHOWN_KEYS)}"
        for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
        if keys
    ]
    return "the weights do not fit this model; " + "; ".join(parts)
