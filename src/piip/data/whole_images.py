"""Whether image files can be decoded to their last pixel: what only opening them does not tell.

A file that was looked at before, and has the same length and time stamp, is not decoded again. What is known is kept
in the user's cache folder, never beside the data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.progress import track

from piip.console import Terminal
from piip.data.decode import ImageError, decode_image
from piip.files import cache_folder, write_json

FOLDER = "decoded"
"""in the cache"""
MEMORY = 8
"""threads at most: each holds one image. Decoders run outside Python's lock, so that threads share the work"""
WORTH_A_BAR = 200
"""files that take long enough to show how far it is"""

Stamp = list[int]
"""a file's length in bytes and time stamp in nanoseconds"""


def undecodable(files: Iterable[Path]) -> dict[Path, str]:
    """The files that cannot be decoded completely, with the reason; a file that is not there is one of them."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for file in dict.fromkeys(files):
        folders[file.parent].append(file)
    broken: dict[Path, str] = {}
    for folder, inside in folders.items():
        broken |= _in_folder(folder, inside)
    return broken


def _in_folder(folder: Path, files: list[Path]) -> dict[Path, str]:
    known = _known(folder)
    stamps = {file: _stamp(file) for file in files}
    new = [file for file in files if stamps[file] is None or known.get(file.name, [None])[0] != stamps[file]]
    with ThreadPoolExecutor(min(MEMORY, os.cpu_count() or 1)) as pool:
        reasons: Iterable[str | None] = pool.map(_reason, new)
        if len(new) >= WORTH_A_BAR:
            reasons = track(reasons, "decoding images", len(new), console=Terminal(stderr=True), transient=True)
        for file, reason in zip(new, reasons, strict=True):
            known[file.name] = [stamps[file], reason]
    if new:
        _keep(folder, known)
    return {file: str(known[file.name][1]) for file in files if known[file.name][1] is not None}


def _reason(file: Path) -> str | None:
    try:
        decode_image(file)
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from error
        return str(error)
    return None


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _record(folder: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=16).hexdigest()
    return cache_folder() / FOLDER / f"{name}.json"


def _known(folder: Path) -> dict[str, Any]:
    """What was found before: stamp and reason, by name. Nothing where the record is missing or damaged."""
    try:
        found = json.loads(_record(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    good = isinstance(found, dict) and all(isinstance(value, list) and len(value) == 2 for value in found.values())
    return found if good else {}


def _keep(folder: Path, known: dict[str, Any]) -> None:
    there = {name: value for name, value in known.items() if value[0] is not None}
    try:
        write_json(_record(folder), there)
    except OSError:
        return  # a home that cannot be written to costs time, nothing else
