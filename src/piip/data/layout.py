"""How data sets lie on a disk, whatever their task: what splits and folders are called, and the images in a folder.

Names are compared without regard to capitals, nor to which of Unicode's two ways an accent is written in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from piip.data.image_files import SUFFIXES
from piip.files import comparable

SplitName = Literal["train", "val", "test"]

NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""what the splits are called in folder and file names"""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages")
"""what a folder of images is called beside the folder of their annotations"""

ASIDE = ("__MACOSX", "__pycache__", "@eaDir")
"""folders that systems write among the data: archives of macOS, Python, and thumbnails of network disks"""

LOOKED_AT = 20_000
"""entries of a folder tree that are looked at for a first image, before it counts as having none"""


def child(folder: Path, names: Iterable[str]) -> Path | None:
    """The file or folder in `folder` with the first of these names that there is; as it is written, if possible."""
    names = list(names)
    exact = next((folder / name for name in names if (folder / name).exists()), None)
    if exact is not None or not folder.is_dir():
        return exact
    there = {comparable(name): name for name in sorted(os.listdir(folder), reverse=True)}
    found = next((there[comparable(name)] for name in names if comparable(name) in there), None)
    return None if found is None else folder / found


def child_folder(folder: Path, names: Iterable[str]) -> Path | None:
    """`child`, if it is a folder."""
    found = child(folder, names)
    return found if found is not None and found.is_dir() else None


def split_of(name: str) -> SplitName | None:
    """The split that a file or folder name speaks of: "instances_val2017" is "val"."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((split for split, names in NAMES.items() if any(word in names for word in words)), None)


def split_called(name: str) -> SplitName | None:
    """The split whose name this is, and nothing else but perhaps a year: "val2017" is "val", "my test" is none."""
    match = re.fullmatch(r"([a-z]+)(20\d\d)?", comparable(name))
    return next((split for split, names in NAMES.items() if match and match[1] in names), None)


def split_folders(root: Path, split: SplitName) -> list[Path]:
    """The folders in `root` that are called like this split and nothing else but perhaps a year, the usual one first.

    >>> [folder.name for folder in split_folders(Path("/nowhere"), "train")]
    []
    """
    ranks = {name: rank for rank, name in enumerate(NAMES[split])}
    found = []
    for folder in visible_folders(root):
        match = re.fullmatch(r"([a-z]+)(20\d\d)?", comparable(folder.name))
        if match and match[1] in ranks:
            found.append((bool(match[2]), ranks[match[1]], folder))
    return [folder for *_, folder in sorted(found)]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name belongs to the system and not to the data."""
    return name.startswith(".") or name in ASIDE


def is_image(name: str, suffixes: Collection[str] = SUFFIXES) -> bool:
    """Whether a file of this name counts as an image."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in suffixes


def visible_folders(folder: Path) -> list[Path]:
    """The folders in a folder, in order; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and deeper inside, in order, without those that belong to the system."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(place, name) for name in files if not is_hidden(name)]
    return sorted(found)


def images_below(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """All image files in a folder and deeper inside, in order."""
    return [file for file in files_below(folder) if is_image(file.name, suffixes)]


def holds_images(folder: Path, suffixes: Collection[str] = SUFFIXES, deep: bool = True) -> bool:
    """Whether there is an image in a folder, or deeper inside; of very large trees only the beginning is looked at."""
    looked_at = 0
    for _, folders, files in os.walk(folder):
        if any(is_image(name, suffixes) for name in files):
            return True
        looked_at += len(files) + len(folders)
        folders[:] = [name for name in sorted(folders) if deep and not is_hidden(name)]
        if looked_at > LOOKED_AT:
            break
    return False
