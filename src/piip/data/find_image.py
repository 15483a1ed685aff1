"""From the name that an annotation or a table gives to an image to the file itself."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from piip.data.image_files import SUFFIXES, ImageError
from piip.data.layout import is_hidden
from piip.files import comparable


class ImageFinder:
    """Finds files by their names in data that was perhaps written on another machine, always inside `folders`.

    Slashes may lean either way. A name that begins with folders that are not here is tried without these, one after
    the other. What is not there as it is written is looked for with other capitals, with Unicode's other way of
    writing accents, and with the ending of an image where the name has none.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self._entries: dict[Path, dict[str, list[str]]] = {}

    def __call__(self, name: str) -> Path:
        """The file that `name` means; ImageError if there is none, or if two could be meant."""
        parts, outside = parts_inside(name)
        for folder in self.folders:
            for start in range(len(parts)):
                path = os.path.join(folder, *parts[start:])
                if os.path.isfile(path):
                    return Path(path)
        for folder in self.folders:
            for start in range(len(parts)):
                found = self._similar(folder, parts[start:])
                if found is not None:
                    return found
        places = " or ".join(f"{folder}{os.sep}" for folder in self.folders)
        leads = "leads to another place, which is never followed, and " if outside else ""
        raise ImageError(f"{name}: {leads}there is no such file in {places}")

    def _similar(self, folder: Path, parts: list[str]) -> Path | None:
        for part in parts[:-1]:
            similar = self._among(folder, [part])
            if similar is None:
                return None
            folder = folder / similar
        endings = ("",) if parts[-1].lower().endswith(SUFFIXES) else ("", *SUFFIXES)
        found = self._among(folder, [parts[-1] + ending for ending in endings])
        return folder / found if found is not None and os.path.isfile(folder / found) else None

    def _among(self, folder: Path, names: list[str]) -> str | None:
        """The one entry of `folder` that has one of these names, or one like it."""
        if folder not in self._entries:
            self._entries[folder] = _entries(folder)
        there = self._entries[folder]
        found = [entry for name in dict.fromkeys(map(comparable, names)) for entry in there.get(name, ())]
        if len(found) > 1:
            composed = {unicodedata.normalize("NFC", name) for name in names}
            found = [entry for entry in found if unicodedata.normalize("NFC", entry) in composed] or found
        if len(found) > 1:
            raise ImageError(f"{names[0]}: could be {' or '.join(found[:3])} in {folder}{os.sep}")
        return found[0] if found else None


def parts_inside(name: str) -> tuple[list[str], bool]:
    """The folders and the file of a name, as far as they stay inside a folder, and whether the name leads out of it.

    >>> parts_inside("C:\\\\data\\\\1.png"), parts_inside("a/../../1.png"), parts_inside("./a/1.png")
    ((['data', '1.png'], True), (['1.png'], True), (['a', '1.png'], False))
    """
    text = name.replace("\\", "/")
    drive = re.match(r"[A-Za-z]:(?=/|$)", text)
    text = text[drive.end() :] if drive else text
    outside = bool(drive) or text.startswith("/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        outside = True
        parts = parts[len(parts) - parts[::-1].index("..") :]
    if os.name == "nt" and any(":" in part for part in parts):
        return [], True  # a drive, or a stream beside a file
    return parts, outside


def _entries(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    try:
        for name in sorted(os.listdir(folder)):
            if not is_hidden(name):
                found[comparable(name)].append(name)
    except (OSError, ValueError):
        return {}
    return dict(found)
