"""Whether image files can be decoded to their last pixel: what only opening them does not tell.

A file that was looked at before, and has the same length and time stamp, is not decoded again. What is known is kept
in the user's cache folder, never beside the data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.progress import track
from torch.utils.data import Dataset

from piip.console import Terminal
from piip.data.decode import REDUCTIONS, decode_image
from piip.data.image_files import ImageError
from piip.data.readers import Readers
from piip.files import cache_folder, write_json

UNDECODABLE = "image file that cannot be decoded"
"""the finding"""
FOLDER = "decoded"
"""in the cache"""
MOST = 8
"""threads or processes at most: each holds one image"""
WORTH_PROCESSES = 64
"""files for which processes are begun; of fewer, threads of this one take care"""
WORTH_A_BAR = 200
"""files that take long enough to show how far it is"""
KEPT_AFTER = 2000
"""files after which is written what is known of them, so that a check that is ended has not been for nothing"""
TOGETHER = 8
"""files that a process is given at a time"""

Stamp = list[int]
"""a file's length in bytes and time stamp in nanoseconds"""


def undecodable(files: Iterable[Path], processes: bool = True, bar: bool = True) -> dict[Path, str]:
    """The files that cannot be decoded completely, with the reason; a file that is not there is one of them.

    Args:
        files: those of one folder share a record of what is known of them.
        processes: decode many files in processes of their own, of which a broken file may end one; else in threads.
        bar: show how far it is, where it takes a while.
    """
    files = list(dict.fromkeys(files))
    known = {folder: _known(folder) for folder in {file.parent for file in files}}
    stamps = {file: _stamp(file) for file in files}
    new = [file for file in files if stamps[file] is None or known[file.parent].get(file.name, [0])[0] != stamps[file]]
    reasons: Iterable[str | None] = _reasons(new, processes and len(new) >= WORTH_PROCESSES)
    if bar and len(new) >= WORTH_A_BAR:
        reasons = track(reasons, "decoding images", len(new), console=Terminal(stderr=True), transient=True)
    found: dict[Path, dict[str, Any]] = defaultdict(dict)
    for number, (file, reason) in enumerate(zip(new, reasons, strict=True), start=1):
        found[file.parent][file.name] = [stamps[file], reason]
        if number % KEPT_AFTER == 0 or number == len(new):
            for folder, inside in found.items():
                known[folder] |= inside
                _keep(folder, inside)
            found.clear()
    reason_of = {file: known[file.parent][file.name][1] for file in files}
    return {file: str(reason) for file, reason in reason_of.items() if reason is not None}


def _reasons(files: Sequence[Path], processes: bool) -> Iterator[str | None]:
    """What is wrong with each file, in order; None where nothing is."""
    workers = min(MOST, os.cpu_count() or 1)
    if not processes:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(_reason, files)
        return
    done = 0
    while done < len(files):
        for reason in _until_a_fault(files[done:], workers, TOGETHER):
            yield reason
            done += 1
        if done == len(files):
            return
        # A file ended its process. One that has a file at a time tells which of the next ones it was.
        suspects = files[done : done + (2 * workers + 1) * TOGETHER]
        innocent = 0
        for reason in _until_a_fault(suspects, 1, 1):
            yield reason
            innocent += 1
        done += innocent
        if innocent < len(suspects):
            yield f"{files[done]}: broken in a way that ends the process which decodes it"
            done += 1


def _until_a_fault(files: Sequence[Path], workers: int, together: int) -> Iterator[str | None]:
    """As `_reasons`, in so many processes; ends early where one of them dies, but not by the system's hand, as when
    memory runs out."""  # fmt: skip
    batches: Readers[list[str | None]] = Readers(
        _Reasons(files),
        batch_size=together,
        num_workers=workers,
        prefetch_factor=1 if together == 1 else 2,
        collate_fn=list,
    )
    try:
        for batch in batches:
            yield from batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "Killed" in str(error):
            raise


class _Reasons(Dataset[str | None]):
    """What is wrong with each of some files."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> str | None:
        return _reason(self.files[index])


def _reason(file: Path) -> str | None:
    try:
        decode_image(file, reduction=REDUCTIONS[0])  # reads a file to its end as any other, in the least time
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


def _keep(folder: Path, found: dict[str, Any]) -> None:
    there = {name: value for name, value in found.items() if value[0] is not None}
    try:
        write_json(_record(folder), _known(folder) | there)  # which other processes write, too
    except OSError:
        return  # a home that cannot be written to costs time, nothing else
