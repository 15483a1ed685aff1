"""YOLO's `data.yaml`: which classes and splits it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from piip.data.layout import NAMES, SplitName
from piip.data.report import DataError
from piip.data.text_files import read_yaml
from piip.files import comparable

LARGEST_NUMBER = 1 << 31
"""of a class"""


def load(file: Path) -> dict[str, Any]:
    """The description, all values as texts; DataError for what is none."""
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: not a YOLO data set, which has `train`, `val` and `names`")
    return content


def split_values(content: dict[str, Any]) -> dict[SplitName, Any]:
    """What is written for each split, where anything is."""
    keys = {comparable(key): value for key, value in content.items() if value and value not in ("null", "~")}
    found = ((split, next((keys[name] for name in names if name in keys), None)) for split, names in NAMES.items())
    return {split: value for split, value in found if value is not None}


def yolo_names(file: Path, names: Any) -> dict[int, str]:
    """The names of the classes by their numbers, in order; DataError for anything else."""
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        raise DataError(f"{file}: `names` must list the classes, or give each number its name")
    found: dict[int, str] = {}
    for key, name in names.items():
        if not (key.isascii() and key.isdecimal()) or int(key[:20]) >= LARGEST_NUMBER:
            raise DataError(f"{file}: `names` has {key!r:.40} for a number; they are 0, 1, 2, ...")
        if not isinstance(name, str):
            raise DataError(f"{file}: `names` has {name!r:.40} for the name of {key}; names must be texts")
        if int(key) in found:
            raise DataError(f"{file}: `names` has the number {int(key)} twice")
        found[int(key)] = name
    return dict(sorted(found.items()))
