"""What a run is trained on, remembered in its checkpoint: a resumed run must not learn other labels unawares."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from piip.console import shortened
from piip.data.report import DataError

LISTED = 8
"""how many classes an error names"""


@runtime_checkable
class Described(Protocol):
    """A training set that says what is in it, as those of the tasks do."""

    @property
    def classes(self) -> Sequence[str]:
        """Names, in label order."""

    def contents(self) -> Iterator[tuple[Path, str]]:
        """The file of each image, in order, and what it is labelled with."""


@dataclass(frozen=True)
class DataRecord:
    """A training set in a few words."""

    classes: list[str]
    images: int
    digest: str
    """of the images' names below their common folder and their labels, in order"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def record_of(data: Any) -> DataRecord | None:
    """The record of a training set; None for one that does not describe itself."""
    if not isinstance(data, Described):
        return None
    contents = list(data.contents())
    files = [os.fspath(path.absolute()) for path, _ in contents]
    common = os.path.commonpath(set(map(os.path.dirname, files))) if contents else ""
    inside = os.path.join(common, "")
    digest = hashlib.sha256()
    for file, (_, labels) in zip(files, contents, strict=True):
        plain = os.sep == "/" and ".." not in file and file.startswith(inside)
        name = file[len(inside) :] if plain else Path(os.path.relpath(file, common)).as_posix()
        digest.update(f"{name}\0{labels}\n".encode("utf-8", "surrogateescape"))
    return DataRecord(list(data.classes), len(contents), digest.hexdigest())


def check_same_data(saved: Mapping[str, Any], now: DataRecord, source: Path) -> None:
    """DataError where the training data is not what it was when checkpoint `source` was written."""
    before = DataRecord(**saved)
    if now == before:
        return
    if now.classes != before.classes:
        difference = f"classes {shortened(before.classes, LISTED)}, now {shortened(now.classes, LISTED)}"
    elif now.images != before.images:
        difference = f"{before.images} images, now there are {now.images}"
    else:
        difference = f"{before.images} images; now there are as many, but other files, labels, or in another order"
    raise DataError(
        f"{source}: the training data changed since it was written: it was trained on {difference}. Resume with the "
        "data as it was, or start a new run from the run's weights"
    )
