"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"
"""in the names of files that are being written"""
LONGEST_NAME = 255
"""bytes of a file's name that file systems take"""
SAFETENSORS_TEMPORARY = ".tmp" + 6 * "[0-9A-Za-z]"
"""what safetensors itself calls a file that it is writing"""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which becomes `path` if the block ends without an exception.

    After a crash or a power cut `path` holds the old content or the new, never a part.
    """
    ending = f"{TEMPORARY}{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(shortened(path.name, LONGEST_NAME - len(ending)) + ending)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files private
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary_files(folder: Path) -> list[Path]:
    """Delete what interrupted writes left in `folder`; returns the deleted paths."""
    stale = sorted({*folder.glob(f"*{TEMPORARY}*"), *folder.glob(SAFETENSORS_TEMPORARY)})
    for path in stale:
        path.unlink(missing_ok=True)
    return stale


def disk_is_full(error: BaseException | None) -> bool:
    """Whether this is behind an error, whatever library it came through."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write plain values as UTF-8; makes the folder. ValueError for NaN and infinite numbers, which are no JSON."""
    text = json_text(content, indent) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(content: Any, indent: int | None = None) -> str:
    """Plain values as JSON that can be written as UTF-8; ValueError for NaN and infinite numbers, which are no JSON.

    What Python keeps of a file name that is not UTF-8 (lone surrogates) is escaped, so that reading it gives the same
    name again.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(name: str, longest: int) -> str:
    """The beginning of `name` that takes at most `longest` bytes in a file system."""
    while len(os.fsencode(name)) > longest:
        name = name[:-1]
    return name


def numbered(names: Iterable[str]) -> list[str]:
    """The same file names, with a number before the suffix of those that were there before: a.png, a-2.png.

    Capitals tell no names apart, as on the disks of Windows and macOS: A.png is A-2.png after a.png.
    """
    given: set[str] = set()
    result = []
    for name in names:
        stem, number, new = Path(name), 1, name
        while comparable(new) in given:
            number += 1
            new = f"{stem.stem}-{number}{stem.suffix}"
        given.add(comparable(new))
        result.append(new)
    return result


def comparable(name: str) -> str:
    """What two names that mean the same have in common, whatever their capitals and Unicode's way of an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def cache_folder() -> Path:
    """Where what can be made again is kept: `$PIIP_HOME`, by default `~/.cache/piip`."""
    if home := os.environ.get("PIIP_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "piip"


def taken(path: Path) -> bool:
    """Whether something has this name, be it a link to nowhere; never follows a link."""
    return os.path.lexists(path)


def refuse_taken(paths: Iterable[Path], remedy: str) -> None:
    """ValueError, which says what to do, where one of `paths` is there: nobody's files are written over.

    A folder without anything in it does not count.
    """
    for path in paths:
        if taken(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
            raise ValueError(f"{path} is there already and would be overwritten or added to; {remedy}")


def free_folder(path: Path, separator: str = "") -> Path:
    """`path`, or where that is taken by a file or a folder with something in it, path2, path3, ..."""
    found, number = path, 1
    while taken(found) and not (found.is_dir() and not any(found.iterdir())):
        number += 1
        found = path.with_name(f"{path.name}{separator}{number}")
    return found


def free_file(path: Path) -> Path:
    """`path`, or where that is taken the same with a number before its ending: a-2.jpg, a-3.jpg, ..."""
    found, number = path, 1
    while taken(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _sync(path: Path) -> None:
    """Wait until `path` (a file or folder) is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
