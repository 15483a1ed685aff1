"""A data set's new folder: complete or not there, outside the data that it is made of, over nothing."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from piip.files import TEMPORARY, refuse_taken

REMEDY = "name a new folder"


@contextmanager
def new_folder(source: str | Path, out: Path) -> Iterator[Path]:
    """Yields a folder that becomes `out` if the block ends without an exception and else is deleted.

    It is beside `out`; in it where that is there, empty, as it may be another disk, or where somebody stands.

    Raises:
        ValueError: `out` is taken, or lies within `source`.
    """
    refuse_taken([out], REMEDY)
    if out.resolve().is_relative_to(Path(source).resolve()):
        raise ValueError(f"{out} lies within {source}, where it would become part of the data; name another folder")
    there = out.is_dir()
    if not there:
        out.parent.mkdir(parents=True, exist_ok=True)
    number = uuid.uuid4().hex[:8]
    unfinished = out / f".unfinished{TEMPORARY}{number}" if there else out.with_name(f"{out.name}{TEMPORARY}{number}")
    try:
        unfinished.mkdir()
        yield unfinished
        if not there:
            unfinished.replace(out)
            return
        found = [child.name for child in unfinished.iterdir()]
        refuse_taken((out / name for name in found), REMEDY)
        for name in found:
            (unfinished / name).rename(out / name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
