"""Tables of classified images: a column for the file, one for the class, perhaps one that names the split.

The names of files are relative to the table, or to a folder of images beside it, and may lack their ending.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from piip.data.find_image import ImageFinder
from piip.data.formats.hugging_face import card_names
from piip.data.image_files import ImageError
from piip.data.layout import IMAGE_FOLDERS, child_folder, split_called, split_folders, split_of
from piip.data.report import DataError, Findings
from piip.data.text_files import Row, read_rows, read_table, table_titles
from piip.data.values import as_name

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")
"""tables of Hugging Face's image folders"""
PATH_COLUMNS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img_path", "image_name",
    "img", "image_id", "id",
)  # fmt: skip
CLASS_COLUMNS = ("label", "class", "class_name", "category", "labels", "target")
SPLIT_COLUMNS = ("split", "set", "subset")
BOX_COLUMNS = ("bbox", "xmin", "x_min", "x1", "ymin", "y_min", "y1", "xmax", "x_max")
"""with one of these the rows are objects and not images"""


class ClassRow(NamedTuple):
    """One row, as it is written."""

    line: int
    path: str
    label: str
    split: str | None
    """None in a table without such a column"""


def is_class_table(table: Path) -> bool:
    """Whether the first line of a table has the columns of one."""
    return _columns(_titles(table)) is not None


def split_values(table: Path) -> list[str]:
    """What stands in the split column, each value once; nothing without such a column."""
    return list(dict.fromkeys(row.split for row in _rows(table) if row.split is not None))


def list_table(
    table: Path, rows: tuple[str, ...], strange: tuple[str, ...], report: Findings
) -> list[tuple[Path, str]]:
    """Files and class names of the rows whose split is among `rows` (of all, if that is empty).

    What cannot be used goes to `report`, and so do the rows with a `strange` split.
    """
    finder = ImageFinder(table.parent, *_image_folders(table))
    known: dict[Path, str] = {}
    entries: list[tuple[Path, str]] = []
    for row in _rows(table):
        where = f"line {row.line}"
        if row.split in strange:
            report.add("left out", "row whose split is none of train, val and test", f"{where}: {row.split!r:.40}")
        if rows and row.split not in rows:
            continue
        if not row.path or not row.label:
            report.add("left out", "row without a path or a class", where)
            continue
        try:
            file = finder(row.path)
        except ImageError as error:
            report.add("left out", "missing file", f"{where}: {error}")
            continue
        if file in known:
            kind = "file listed twice" if known[file] == row.label else "file listed again with another class"
            report.add("left out", kind, f"{where}: {row.path} ({known[file]}, {row.label})")
            continue
        known[file] = row.label
        entries.append((file, row.label))
    return entries


def _image_folders(table: Path) -> list[Path]:
    """Folders beside a table that its images may be in: called like the table, like its split, or images."""
    split = split_of(table.stem) or split_called(table.parent.name)
    named = [child_folder(table.parent, (name,)) for name in (table.stem, f"{table.stem}_images", *IMAGE_FOLDERS)]
    folders = [*named, *(split_folders(table.parent, split) if split else ())]
    return [folder for folder in dict.fromkeys(folders) if folder is not None]


def _columns(titles: list[str]) -> tuple[int, int, int | None] | None:
    """Where path, class and split are; None if path or class are missing, or if the rows are objects."""
    places = {title.lower(): place for place, title in enumerate(titles)}
    path, label, split = (
        next((places[name] for name in names if name in places), None)
        for names in (PATH_COLUMNS, CLASS_COLUMNS, SPLIT_COLUMNS)
    )
    boxes = any(name in places for name in BOX_COLUMNS)
    return None if path is None or label is None or boxes else (path, label, split)


def _titles(table: Path) -> list[str]:
    """The columns; of JSON lines those of the first, without values that are no text and no number."""
    if table.suffix.lower() != ".jsonl":
        return table_titles(table)
    try:
        _, row = next(read_rows(table), (0, {}))
    except DataError:
        return []
    return [title for title, value in row.items() if as_name(value) is not None]


def _table(table: Path) -> tuple[list[str], Iterator[Row]]:
    """Titles and rows, of whatever kind of table."""
    if table.suffix.lower() != ".jsonl":
        return read_table(table)
    titles = _titles(table)
    names = card_names(table.parent) or card_names(table.parent.parent)
    label = next((title for title in titles if title.lower() in CLASS_COLUMNS), None)

    def text(title: str, value: Any) -> str:
        number = value if title == label and isinstance(value, int) and not isinstance(value, bool) else -1
        return names[number] if 0 <= number < len(names) else (as_name(value) or "").strip()

    rows = (Row(line, [text(title, row.get(title)) for title in titles]) for line, row in read_rows(table))
    return titles, rows


def _rows(table: Path) -> Iterator[ClassRow]:
    titles, rows = _table(table)
    columns = _columns(titles)
    if columns is None:
        boxes = [title for title in titles if title.lower() in BOX_COLUMNS]
        if boxes:
            raise DataError(f"{table}: a table of boxes (columns {', '.join(boxes)}), not of classified images; "
                            "convert it to COCO annotations")  # fmt: skip
        raise DataError(f"{table}: its header has the columns {titles}; needed are a path ({', '.join(PATH_COLUMNS)}) "
                        f"and a class ({', '.join(CLASS_COLUMNS)})")  # fmt: skip
    path, label, split = columns
    for line, cells in rows:
        filled = cells + [""] * (max(path, label, split or 0) + 1 - len(cells))
        yield ClassRow(line, filled[path], filled[label], None if split is None else filled[split])
