"""Finding the images and class names of a classification data set, in class folders or in a table.

Recognised, whatever the capitals:

- `train/CLASS/*.jpg` and `val/` (or `valid/`, `validation/`, `test/`): ImageNet's layout, images also deeper inside;
- `CLASS/*.jpg`: one split, "train" unless the folder's own name says otherwise;
- `train.csv`, `val.csv`, `test.csv` in a folder, or one table, which may have a column that names the split; see
  `tables`.

Folders called by ImageNet's WordNet ids get readable names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from piip.data.classification.tables import METADATA, TABLE_SUFFIXES, is_class_table, list_table, split_values
from piip.data.layout import (
    IMAGE_FOLDERS,
    NAMES,
    SplitName,
    child,
    comparable,
    files_below,
    holds_images,
    is_image,
    split_folders,
    split_of,
    visible_folders,
)
from piip.data.opening import existing
from piip.data.report import DataError, Findings

FILES = TABLE_SUFFIXES
"""endings of files that are a data set by themselves"""
LOOKED_FOR = (
    "class folders (train/CLASS/*.jpg and val/ or test/, or CLASS/*.jpg here) or train.csv with the columns path and "
    "label"
)
NO_CLASSES = {comparable(name) for name in (*IMAGE_FOLDERS, "annotations", "labels", "masks")}
"""folders beside which nothing is a class: they are parts of data of another kind"""


class ClassSplit(NamedTuple):
    """Where one part of a data set is."""

    source: Path
    """a folder of class folders, or a table"""
    rows: tuple[str, ...] = ()
    """of a table with a split column: the values that mean this split"""
    strange: tuple[str, ...] = ()
    """of the same: the values that mean no split at all, which are reported with the first split"""


@dataclass
class Listing:
    """What is listed, before any file is opened."""

    entries: list[tuple[Path, str]] = field(default_factory=list)
    """file and class name"""
    classes: list[str] = field(default_factory=list)
    """all class names in label order, also of classes without a file"""


def find_class_splits(path: str | Path) -> dict[SplitName, ClassSplit]:
    """The splits of a data set, at least one; DataError that says what was looked for if nothing is recognised."""
    path = existing(path)
    if path.is_file() and path.suffix.lower() not in FILES:
        raise DataError(f"{path}: give a folder of class folders, or a table (.csv) of paths and classes")
    found = class_splits_at(path)
    if not found:
        raise DataError(f"{path}: no classified images recognised. Looked for {LOOKED_FOR}")
    return found


def class_splits_at(path: Path) -> dict[SplitName, ClassSplit]:
    """`find_class_splits` that finds nothing where nothing is recognised."""
    if path.is_file():
        return _table_splits(path)
    tables = {name: child(path, _table_names(name)) for name in NAMES}
    there = {name: table for name, table in tables.items() if table is not None and table.is_file()}
    metadata = _metadata_splits(path)
    if metadata:
        return metadata
    # A table of something else, beside class folders, is only taken where there is nothing better, to say why not.
    good = {name: ClassSplit(table) for name, table in there.items() if is_class_table(table)}
    return good or _folder_splits(path) or {name: ClassSplit(table) for name, table in there.items()}


def _metadata_splits(root: Path) -> dict[SplitName, ClassSplit]:
    """Hugging Face's image folders: a metadata file in the folder of each split, or one for all."""
    found: dict[SplitName, ClassSplit] = {}
    for split in NAMES:
        for folder in split_folders(root, split):
            table = child(folder, METADATA)
            if table is not None and is_class_table(table):
                found.setdefault(split, ClassSplit(table))
    table = None if found else child(root, METADATA)
    return found if table is None or not is_class_table(table) else _table_splits(table)


def list_images(split: ClassSplit, report: Findings) -> Listing:
    """Files and classes of a split; what cannot be used goes to `report`."""
    if split.source.is_dir():
        listing = _list_folders(split.source, report)
    else:
        entries = list_table(split.source, split.rows, split.strange, report)
        listing = Listing(entries, ordered(label for _, label in entries))
    return _with_readable_names(listing)


def _folder_splits(root: Path) -> dict[SplitName, ClassSplit]:
    found: dict[SplitName, ClassSplit] = {}
    for name in NAMES:
        folder = next((folder for folder in split_folders(root, name) if _class_folders(folder)), None)
        if folder is not None:
            found[name] = ClassSplit(folder)
    if not found and any(split_of(folder.name) is None for folder in _class_folders(root)):
        return {split_of(root.resolve().name) or "train": ClassSplit(root)}
    return found


def _class_folders(root: Path) -> list[Path]:
    """The folders in `root` that hold images, if they can be classes: not beside a folder of images or annotations."""
    folders = [folder for folder in visible_folders(root) if holds_images(folder)]
    return [] if any(comparable(folder.name) in NO_CLASSES for folder in folders) else folders


def _table_names(split: SplitName) -> list[str]:
    return [f"{name}{suffix}" for name in NAMES[split] for suffix in TABLE_SUFFIXES]


def _table_splits(table: Path) -> dict[SplitName, ClassSplit]:
    values = split_values(table)
    if not values:
        return {split_of(table.stem) or "train": ClassSplit(table)}
    found: dict[SplitName, ClassSplit] = {}
    strange = tuple(value for value in values if split_of(value) is None)
    for split in NAMES:
        meant = tuple(value for value in values if split_of(value) == split)
        if meant:
            found[split] = ClassSplit(table, meant, () if found else strange)
    if not found:
        raise DataError(f"{table}: the values of its split column mean nothing here: {list(values)[:5]}; "
                        "write train, val or test")  # fmt: skip
    return found


def _list_folders(root: Path, report: Findings) -> Listing:
    listing = Listing(classes=ordered(folder.name for folder in visible_folders(root)))
    for name in listing.classes:
        for file in files_below(root / name):
            if is_image(file.name):
                listing.entries.append((file, name))
            else:
                report.add("note", "file that is no image", str(file.relative_to(root)))
    for file in sorted(root.iterdir()):
        if is_image(file.name) and file.is_file():
            report.add("left out", "image outside of the class folders", file.name)
    return listing


def ordered(names: Iterable[str]) -> list[str]:
    """Each name once, in alphabetical order; numbers by their value."""
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def _with_readable_names(listing: Listing) -> Listing:
    if not all(re.fullmatch(r"n\d{8}", name) for name in listing.classes):
        return listing
    from piip.data.names.imagenet import imagenet_classes

    names = imagenet_classes()
    return Listing(
        [(file, names.get(label, label)) for file, label in listing.entries],
        [names.get(label, label) for label in listing.classes],
    )
