"""Where the annotation files are that every image has one of, and the images they belong to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from piip.data.layout import (
    IMAGE_FOLDERS,
    LOOKED_AT,
    NAMES,
    SplitName,
    child_folder,
    files_below,
    holds_images,
    is_hidden,
    split_called,
    split_folders,
)

TRIED = 5
"""files of a folder that are looked into, to find whether it holds annotations of a kind"""


class Place(NamedTuple):
    """One part of a data set."""

    labels: Path
    images: Path


class Kind(NamedTuple):
    """One kind of annotation files."""

    folders: Sequence[str]
    """what a folder of them may be called"""
    suffix: str
    fits: Callable[[Path], bool]
    """whether a file is one, by a look at its beginning"""

    def files(self, folder: Path) -> list[Path]:
        """All files of a folder that may be some, in order, deeper ones too."""
        return [file for file in files_below(folder) if file.suffix.lower() == self.suffix]

    def in_folder(self, folder: Path, deep: bool) -> bool:
        """Whether one of a folder's first files is one."""
        tried = looked_at = 0
        for place, folders, names in os.walk(folder):
            for name in sorted(name for name in names if name.lower().endswith(self.suffix) and not is_hidden(name)):
                if self.fits(Path(place, name)):
                    return True
                tried += 1
                if tried >= TRIED:
                    return False
            looked_at += len(names) + len(folders)
            folders[:] = sorted(name for name in folders if deep and not is_hidden(name))
            if looked_at > LOOKED_AT:
                break
        return False


def find_places(root: Path, kind: Kind) -> dict[SplitName, Place]:
    """The parts of a data set; empty where there are none.

    Looked for: `train/` with the files or a folder of them, beside the images or a folder of them;
    `annotations/train` and `images/train`; a folder of them, or files beside their images, which is one split.
    """
    found: dict[SplitName, Place] = {}
    for split in NAMES:
        place = _in_split_folder(root, split, kind) or _in_two_trees(root, split, kind)
        if place is not None:
            found[split] = place
    if found:
        return found
    place = _within(root, kind)
    return {} if place is None else {split_called(root.resolve().name) or "train": place}


def _in_split_folder(root: Path, split: SplitName, kind: Kind) -> Place | None:
    places = (_within(folder, kind) for folder in split_folders(root, split))
    return next((place for place in places if place is not None), None)


def _in_two_trees(root: Path, split: SplitName, kind: Kind) -> Place | None:
    base = child_folder(root, kind.folders)
    for labels in [] if base is None else split_folders(base, split):
        if kind.in_folder(labels, deep=True):
            images = child_folder(root, IMAGE_FOLDERS)
            beside = [] if images is None else [*split_folders(images, split), images]
            return Place(labels, next(iter([*beside, *split_folders(root, split), labels])))
    return None


def _within(folder: Path, kind: Kind) -> Place | None:
    inside = child_folder(folder, kind.folders)
    if inside is not None and kind.in_folder(inside, deep=True):
        return Place(inside, _images(folder, inside))
    return Place(folder, _images(folder, folder)) if kind.in_folder(folder, deep=False) else None


def _images(folder: Path, labels: Path) -> Path:
    named = child_folder(folder, IMAGE_FOLDERS)
    if named is not None:
        return named
    return labels if holds_images(labels) else folder
