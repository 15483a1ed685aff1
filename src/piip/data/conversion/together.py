"""What the writers share: one list of classes for all splits, and images that are copied under names of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from piip.data.detection.annotations import CocoData
from piip.files import comparable

Split = TypeVar("Split", bound=str)


def of_one_list(splits: Mapping[Split, CocoData]) -> dict[Split, CocoData]:
    """The same data with the same classes and ids in all splits: those of the first, then what others add."""
    first, *others = splits.values()
    if all((data.classes, data.category_ids) == (first.classes, first.category_ids) for data in others):
        return dict(splits)
    added = dict.fromkeys(name for data in others for name in data.classes if name not in first.classes)
    start = max(first.category_ids) + 1
    classes, ids = (*first.classes, *added), (*first.category_ids, *range(start, start + len(added)))
    return {split: data.with_classes(classes, ids) for split, data in splits.items()}


def names_below(files: Sequence[Path]) -> list[str]:
    """The names of files below the folder that all are in, with slashes; one name stands for one file."""
    if not files:
        return []
    root = os.path.commonpath([file.parent.absolute() for file in files])
    return [Path(os.path.relpath(file.absolute(), root)).as_posix() for file in files]


def flat_names(files: Sequence[Path]) -> list[str]:
    """A file name for each, with a number where another has the same but for its ending."""
    taken: set[str] = set()
    names = []
    for file in files:
        stem, number = file.stem, 1
        while comparable(stem) in taken:
            number += 1
            stem = f"{file.stem}-{number}"
        taken.add(comparable(stem))
        names.append(f"{stem}{file.suffix}")
    return names


def copy_all(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Copy files to new places, with their time stamps."""
    for source, target in pairs:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
