"""Finding the images and class names of a classification data set, in class folders or in a table.

Recognised:

- `train/CLASS/*.jpg` and `val/` (or `valid/`, `validation/`, `test/`): ImageNet's layout, images also deeper inside;
- `CLASS/*.jpg`: one split, "train" unless the folder's own name says otherwise;
- `train.csv`, `val.csv`, `test.csv` in a folder, or one .csv file, which may have a column that names the split.

A table has a header with a column for the file (`path`, `file`, `filename`, `image`) and one for the class (`label`,
`class`, `category`); paths are relative to the table. Folders called by ImageNet's WordNet ids get readable names.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from piip.data.decode import SUFFIXES, ImageError
from piip.data.detection.images import find_image
from piip.data.detection.splits import NAMES, SplitName
from piip.data.report import DataError, Findings

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
CLASS_COLUMNS = ("label", "class", "class_name", "category")
SPLIT_COLUMNS = ("split", "set", "subset")
DELIMITERS = ",;\t"


class ClassSplit(NamedTuple):
    """Where one part of a data set is."""

    source: Path
    """a folder of class folders, or a table"""
    rows: tuple[str, ...] = ()
    """of a table with a split column: the values that mean this split"""


@dataclass
class Listing:
    """What is listed, before any file is opened."""

    entries: list[tuple[Path, str]] = field(default_factory=list)
    """file and class name"""
    classes: list[str] = field(default_factory=list)
    """all class names in label order, also of classes without a file"""


def find_class_splits(path: str | Path) -> dict[SplitName, ClassSplit]:
    """The splits of a data set, at least one; DataError that says what was looked for if nothing is recognised."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_file():
        return _table_splits(path)
    tables = {name: _first_file(path, names) for name, names in NAMES.items()}
    found = {name: ClassSplit(table) for name, table in tables.items() if table is not None}
    if not found:
        folders = {name: _first_split_folder(path, names) for name, names in NAMES.items()}
        found = {name: ClassSplit(folder) for name, folder in folders.items() if folder is not None}
    if not found and any(_images(folder) for folder in _folders(path)):
        found = {_split_of(path.name) or "train": ClassSplit(path)}
    if not found:
        raise DataError(
            f"{path}: no classified images recognised. Looked for class folders (train/CLASS/*.jpg and val/ or test/, "
            "or CLASS/*.jpg here) and for train.csv with the columns path and label"
        )
    return found


def list_images(split: ClassSplit, report: Findings) -> Listing:
    """Files and classes of a split; what cannot be used goes to `report`."""
    if split.source.is_dir():
        listing = _list_folders(split.source, report)
    else:
        listing = _list_table(split, report)
    return _with_readable_names(listing)


# -- folders ---------------------------------------------------------------------------------------------------------


def _first_split_folder(root: Path, names: Iterable[str]) -> Path | None:
    folders = (root / name for name in names)
    return next((folder for folder in folders if folder.is_dir() and any(_folders(folder))), None)


def _list_folders(root: Path, report: Findings) -> Listing:
    listing = Listing(classes=_ordered(folder.name for folder in _folders(root)))
    for name in listing.classes:
        for file in sorted((root / name).rglob("*")):
            if file.is_dir() or _hidden(file):
                continue
            if file.suffix.lower() in SUFFIXES:
                listing.entries.append((file, name))
            else:
                report.add("note", "file that is no image", str(file.relative_to(root)))
    for file in root.iterdir():
        if file.is_file() and file.suffix.lower() in SUFFIXES:
            report.add("left out", "image outside of the class folders", file.name)
    return listing


def _folders(path: Path) -> Iterator[Path]:
    return (folder for folder in sorted(path.iterdir()) if folder.is_dir() and not _hidden(folder))


def _images(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "__"))


# -- tables ----------------------------------------------------------------------------------------------------------


def _first_file(root: Path, names: Iterable[str]) -> Path | None:
    return next((root / f"{name}.csv" for name in names if (root / f"{name}.csv").is_file()), None)


def _table_splits(table: Path) -> dict[SplitName, ClassSplit]:
    if table.suffix.lower() != ".csv":
        raise DataError(f"{table}: give a folder of class folders, or a table (.csv) of paths and classes")
    _, rows = _read_table(table)
    values = dict.fromkeys(row["split"] for row in rows if "split" in row)
    if not values:
        return {_split_of(table.stem) or "train": ClassSplit(table)}
    found: dict[SplitName, ClassSplit] = {}
    for split in NAMES:
        meant = tuple(value for value in values if _split_of(value) == split)
        if meant:
            found[split] = ClassSplit(table, meant)
    if not found:
        raise DataError(f"{table}: the values of its split column mean nothing here: {list(values)[:5]}; "
                        "write train, val or test")  # fmt: skip
    return found


def _list_table(split: ClassSplit, report: Findings) -> Listing:
    table = split.source
    first_line, rows = _read_table(table)
    known: dict[Path, str] = {}
    listing = Listing()
    for line, row in enumerate(rows, start=first_line):
        if split.rows and row.get("split") not in split.rows:
            continue
        name, label = row["path"], row["label"]
        if not name or not label:
            report.add("left out", "row without a path or a class", f"line {line}")
            continue
        try:
            file = find_image(table.parent, name)
        except ImageError as error:
            report.add("left out", "missing file", f"line {line}: {error}")
            continue
        if file in known:
            kind = "file listed twice" if known[file] == label else "file listed again with another class"
            report.add("left out", kind, f"line {line}: {name} ({known[file]}, {label})")
            continue
        known[file] = label
        listing.entries.append((file, label))
    listing.classes = _ordered(label for _, label in listing.entries)
    return listing


def _read_table(table: Path) -> tuple[int, list[dict[str, str]]]:
    """The number of the first line below the header, and the rows with the keys path, label and perhaps split."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table}: not readable as text: {error}") from error
    lines = text.splitlines()
    header = lines[0] if lines else ""
    delimiter = max(DELIMITERS, key=header.count)
    titles = next(csv.reader([header], delimiter=delimiter), [])
    columns = {title.strip().lower(): position for position, title in enumerate(titles)}
    wanted = {"path": PATH_COLUMNS, "label": CLASS_COLUMNS, "split": SPLIT_COLUMNS}
    places = {key: next((columns[n] for n in names if n in columns), None) for key, names in wanted.items()}
    if places["path"] is None or places["label"] is None:
        raise DataError(f"{table}: its header has the columns {titles}; needed are a path ({', '.join(PATH_COLUMNS)}) "
                        f"and a class ({', '.join(CLASS_COLUMNS)})")  # fmt: skip
    rows = []
    for cells in csv.reader(lines[1:], delimiter=delimiter):
        used = {key: place for key, place in places.items() if place is not None}
        rows.append({key: cells[place].strip() if place < len(cells) else "" for key, place in used.items()})
    return 2, rows


# -- names -----------------------------------------------------------------------------------------------------------


def _split_of(name: str) -> SplitName | None:
    words = re.findall(r"[a-z]+", name.lower())
    return next((split for split, names in NAMES.items() if any(word in names for word in words)), None)


def _ordered(names: Iterable[str]) -> list[str]:
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
