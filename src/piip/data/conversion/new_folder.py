"""A data set's new folder: complete or not there, beside the data that it is made of, over nothing."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from piip.files import TEMPORARY, refuse_taken


@contextmanager
def new_folder(source: str | Path, out: Path) -> Iterator[Path]:
    """Yields a folder beside `out`, which becomes `out` if the block ends without an exception and else is deleted.

    Raises:
        ValueError: `out` is taken, or lies within `source`.
    """
    refuse_taken([out], "name a new folder")
    if out.resolve().is_relative_to(Path(source).resolve()):
        raise ValueError(f"{out} lies within {source}, where it would become part of the data; name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f"{out.name}{TEMPORARY}{uuid.uuid4().hex[:8]}")
    try:
        unfinished.mkdir()
        yield unfinished
        if out.is_dir():
            out.rmdir()  # it is empty
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
