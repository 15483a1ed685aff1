"""Tables of boxes, a row for each: Open Images' and those that Roboflow and TensorFlow's tools write.

    train-annotations-bbox.csv, class-descriptions-boxable.csv, train/*.jpg    (Open Images, in parts of the sides)
    train/_annotations.csv, train/*.jpg                                        (filename,width,height,class,xmin,...)

Open Images' groups are crowd regions; its boxes of confidence 0 say that nothing is there, and are passed over.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from piip.data.find_image import ImageFinder
from piip.data.formats.records import Content, Format, FormatSplit, Records, Source, Split
from piip.data.formats.shapes import numbers
from piip.data.image_files import ImageError, read_header, upright_size
from piip.data.layout import IMAGE_FOLDERS, NAMES, SplitName, child_folder, is_hidden, split_folders, split_of
from piip.data.report import CheckReport, DataError
from piip.data.text_files import read_table, table_titles

OPEN_IMAGES = "Open Images"
TABLE = "table of boxes"
NAMES_OF = {
    "file": ("imageid", "filename", "file_name", "image_path", "path", "file", "image", "image_id", "img"),
    "class": ("labelname", "class", "label", "class_name", "category", "name"),
    "xmin": ("xmin", "x_min", "x1"),
    "ymin": ("ymin", "y_min", "y1"),
    "xmax": ("xmax", "x_max", "x2"),
    "ymax": ("ymax", "y_max", "y2"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "group": ("isgroupof",),
    "confidence": ("confidence",),
}
"""columns, by what they may be called, whatever the capitals"""
NEEDED = ("file", "class", "xmin", "ymin", "xmax", "ymax")
DESCRIPTIONS = ("class-descriptions-boxable.csv", "class-descriptions.csv", "oidv7-class-descriptions-boxable.csv",
                "classes.csv")  # fmt: skip
"""of Open Images: an id and a name in each line"""


def _columns(titles: list[str]) -> dict[str, int] | None:
    places = {title.lower(): place for place, title in reversed(list(enumerate(titles)))}
    found = {what: next((places[name] for name in names if name in places), -1) for what, names in NAMES_OF.items()}
    return found if all(found[what] >= 0 for what in NEEDED) else None


def is_box_table(file: Path) -> bool:
    """Whether the first line of a table has the columns of one."""
    return file.suffix.lower() in (".csv", ".tsv") and _columns(table_titles(file)) is not None


def find(path: Path) -> dict[SplitName, Split]:
    """The splits of tables of boxes, a folder or one table; empty where there are none."""
    if path.is_file():
        return {split_of(path.stem) or "train": _split(path, path.parent)} if is_box_table(path) else {}
    found: dict[SplitName, Split] = {}
    for split in NAMES:
        for folder in split_folders(path, split):
            inside = child_folder(folder, ("labels",))
            tables = _tables(folder) or ([] if inside is None else _tables(inside))
            if len(tables) == 1:
                found.setdefault(split, _split(tables[0], folder))
    if found:
        return found
    tables = _tables(path)
    inside = child_folder(path, ("annotations",))
    tables = tables or ([] if inside is None else _tables(inside))
    named = {split_of(table.stem): table for table in tables}
    if len(tables) == 1:
        return {split_of(tables[0].stem) or "train": _split(tables[0], path)}
    return {split: _split(named[split], path) for split in NAMES if split in named}


def _tables(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if not is_hidden(file.name) and is_box_table(file)]


def _split(table: Path, root: Path) -> Split:
    split = split_of(table.stem)
    places = [*(split_folders(root, split) if split else ()), child_folder(root, (*IMAGE_FOLDERS, "data"))]
    images = next((place for place in places if place is not None), root)
    deeper = child_folder(images, ("data", *IMAGE_FOLDERS))
    open_images = "labelname" in {title.lower() for title in table_titles(table)}
    name = OPEN_IMAGES if open_images else TABLE
    return FormatSplit(table, deeper or images, Format(name, partial(read, root=root, parts=open_images)))


def read(table: Path, images: Source, report: CheckReport, root: Path, parts: bool) -> Content:
    """All rows in COCO's form; `parts`: places are in parts of the image's sides."""
    assert isinstance(images, Path)
    titles, rows = read_table(table)
    columns = _columns(titles)
    if columns is None:
        raise DataError(f"{table}: has the columns {titles}; needed are those of {', '.join(NEEDED)}")
    names = _descriptions(table, root) if parts else {}
    records = Records(report)
    finder, ids, sizes = ImageFinder(images), dict[str, int](), dict[str, tuple[Any, Any]]()
    for line, cells in rows:
        cell = {what: cells[place] if 0 <= place < len(cells) else "" for what, place in columns.items()}
        if not cell["file"]:
            report.add("left out", "row without an image", f"line {line}")
            continue
        if cell["file"] not in ids:
            sizes[cell["file"]] = _size(cell["file"], finder) if parts else (cell["width"], cell["height"])
            ids[cell["file"]] = records.image(cell["file"], *sizes[cell["file"]])
        corners: list[Any] = [cell[side] for side in NEEDED[2:]]
        if parts:
            whole, given = numbers(sizes[cell["file"]]), numbers(corners)
            if whole is None:
                continue  # the image is missing, which is reported where those of all formats are
            corners = corners if given is None else [part * side for part, side in zip(given, whole * 2, strict=True)]
        if parts and numbers([cell["confidence"]]) == [0.0]:
            report.add("note", "row that says that a class is not there", f"line {line}")
        elif any(corners) or cell["class"]:
            name = names.get(cell["class"], cell["class"])
            records.box(ids[cell["file"]], name, corners, crowd=parts and cell["group"] == "1")
    return records.content(images)


def _size(name: str, finder: ImageFinder) -> tuple[Any, Any]:
    """(width, height) of the upright image; no numbers where it cannot be opened."""
    try:
        height, width = upright_size(*read_header(finder(name)))
    except ImageError:
        return None, None
    return width, height


def _descriptions(table: Path, root: Path) -> dict[str, str]:
    """The names of Open Images' classes by their ids, from a list beside the table, or two folders up."""
    folders = dict.fromkeys((root, table.parent, *(folder / "metadata" for folder in (root, table.parent.parent))))
    files = (folder / name for folder in folders for name in DESCRIPTIONS)
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return {}
    first, rows = read_table(file)
    return {cells[0]: cells[1] for cells in (first, *(row.cells for row in rows)) if len(cells) >= 2}
