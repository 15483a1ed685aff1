"""Images that are named, not given: files, folders, patterns, lists and tables of any length."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from piip.data.classification.tables import PATH_COLUMNS
from piip.data.image_files import SUFFIXES
from piip.data.layout import holds_images, is_hidden, is_image
from piip.data.text_files import read_lines, read_table

LISTS = (".txt", ".csv", ".tsv")
"""endings of files that name images: one in a line, or in a column of a table"""
TABLES = LISTS[1:]


class Paths(Sequence[Path]):
    """Files, each held as its text: a million take about 120 MB, a fifth of as many `Path` objects."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(names)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> Paths: ...

    def __getitem__(self, index: int | slice) -> Path | Paths:
        return Paths(self.names[index]) if isinstance(index, slice) else Path(self.names[index])

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.names)


@dataclass(frozen=True)
class Shard:
    """One of several parts of a list of images, for as many machines or jobs as there are."""

    number: int = 1
    """from 1"""
    count: int = 1

    @classmethod
    def of(cls, text: str) -> Shard:
        """From "2/8"; ValueError for anything else."""
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"shard {text!r}: use its number, from 1, and how many there are, such as 2/8")
        return cls(int(number), int(count))

    @property
    def name(self) -> str:
        """Of its folder; sorted as the numbers are."""
        return f"{self.number:0{len(str(self.count))}}-of-{self.count}"

    def id_of(self, number: int) -> int:
        """The id of its `number`th image, counted from 1, which no other shard has: the place in the whole list, as
        long as none before it failed."""
        return (number - 1) * self.count + self.number

    def part_of(self, images: Paths) -> Paths:
        """Every `count`th image, so that what is large or late in the list is spread."""
        return images[self.number - 1 :: self.count]


ALL = Shard()
"""of one part"""


def paths_of(source: str | Path, recursive: bool = False) -> Paths:
    """The image files that a file, folder, pattern, list or table stands for, a folder's and a pattern's sorted.

    `recursive`: with the folders inside a folder. `~` is the user's home; a name after an `@` is a list whatever its
    ending.

    Raises:
        FileNotFoundError: there are none.
        ValueError: an address on the network, or a table without a column of paths.
    """
    text = str(source)
    if text.startswith(("http:/", "https:/", "s3:/", "gs:/", "rtsp:/")):
        raise ValueError(f"{text}: nothing is fetched from the network; download the image, or pass its bytes")
    path = Path(source).expanduser()
    if path.is_file():
        return _listed(path) if is_list(path) else Paths([str(path)])
    if path.is_dir():
        found = _below(path) if recursive else [entry.path for entry in os.scandir(path) if entry.is_file()]
        found = [name for name in found if is_image(os.path.basename(name))]
    elif text.startswith("@"):
        return _listed(Path(text[1:]).expanduser())
    elif glob.has_magic(text):
        names = (str(Path(name)) for name in glob.glob(str(path), recursive=True))
        found = [name for name in names if name.lower().endswith(SUFFIXES) and os.path.isfile(name)]
    elif text == "-":
        raise FileNotFoundError("-: no such file; standard input is read by the command alone, `piip predict -`. Pass "
                                "a list of paths, sys.stdin.read().splitlines(), or an image's bytes")  # fmt: skip
    else:
        raise FileNotFoundError(f"{source}: no such file or folder")
    if not found:
        deeper = path.is_dir() and not recursive and holds_images(path)
        hint = "; there are some in its folders: use recursive" if deeper else ""
        raise FileNotFoundError(f"{source}: no images there (files ending in {', '.join(SUFFIXES)}){hint}")
    return Paths(sorted(found, key=_parts))


def is_list(path: Path) -> bool:
    """Whether a file names images, going by its ending."""
    return path.suffix.lower() in LISTS


def from_lines(lines: Iterable[str]) -> Paths:
    """The files named by lines, as they come from a pipe."""
    return Paths(name for line in lines if (name := line.strip()))


def _listed(path: Path) -> Paths:
    """What a list names: relative to its folder if the first name is there, else to where the program runs."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such list")
    names = _column(path) if path.suffix.lower() in TABLES else from_lines(read_lines(path)).names
    if not names:
        raise FileNotFoundError(f"{path}: this list names no image")
    first = os.path.expanduser(names[0])
    home = "" if os.path.exists(first) and not (path.parent / first).exists() else str(path.parent)
    return Paths(os.path.normpath(os.path.join(home, os.path.expanduser(name))) for name in names)


def _column(path: Path) -> list[str]:
    """The cells of a table's column of paths; a table of one column may have no title."""
    titles, rows = read_table(path)
    known = [number for number, title in enumerate(titles) if title.lower() in PATH_COLUMNS]
    if not known and len(titles) != 1:
        raise ValueError(f"{path}: no column of paths among {', '.join(titles)}; name it {PATH_COLUMNS[0]}")
    column = known[0] if known else 0
    cells = [row.cells[column] for row in rows if len(row.cells) > column and row.cells[column]]
    return cells if known else [*titles, *cells]


def _below(folder: Path) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [os.path.join(place, name) for name in files]
    return found


def _parts(name: str) -> list[str]:
    """Folders before what is beside them, as paths are sorted."""
    return name.split(os.sep)
