"""What opening a data set has in common, whatever its task: a path, the splits that were found there, one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from piip import processes
from piip.data.layout import SplitName
from piip.data.report import DataError, Findings
from piip.data.shared_file import to_this_machine

Place = TypeVar("Place")
Data = TypeVar("Data")
Report = TypeVar("Report", bound=Findings)

EVALUATED: tuple[SplitName, ...] = ("val", "test")
"""splits that a training is evaluated on, the first that there is"""


def existing(path: str | Path) -> Path:
    """`path`; DataError if there is nothing."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    return path


def chosen(path: str | Path, splits: Mapping[SplitName, Place], split: str) -> Place:
    """The place of one split; DataError names the splits there are."""
    found = next((place for name, place in splits.items() if name == split), None)
    if found is None:
        raise DataError(f"{path}: has no split {split!r}; it has {', '.join(splits)}")
    return found


def evaluated(splits: Mapping[SplitName, Place]) -> SplitName | None:
    """The split that a training is evaluated on, if there is one."""
    return next((name for name in EVALUATED if name in splits), None)


def opened_once(read: Callable[[], Data]) -> Data:
    """What `read` gives, of which the processes of a machine hold one copy of what is large: the first of them reads.

    Among several it is one collective. Where the first cannot read, all try, so that each raises its error.
    """
    data, failed = None, None
    if processes.is_first_here():
        try:
            data = read()
        except Exception as error:
            failed = error
    try:
        with to_this_machine():
            shared = processes.from_first_here(data)
    except OSError:  # the temporary folder is not the first one's
        shared = None
    if failed is not None:
        raise failed
    if data is not None:
        return data
    return read() if shared is None else shared


def check_each(
    splits: Mapping[SplitName, Place],
    read: Callable[[Place], tuple[Data, Report]],
    empty: Callable[[Place], Report],
) -> tuple[dict[SplitName, Data], dict[SplitName, Report]]:
    """The data of the splits that can be used, and a report of each.

    A split that cannot be used at all has the `empty` report with one finding of severity "error".
    """
    usable: dict[SplitName, Data] = {}
    reports: dict[SplitName, Report] = {}
    for name, place in splits.items():
        try:
            usable[name], reports[name] = read(place)
        except DataError as error:
            reports[name] = empty(place)
            reports[name].add("error", "cannot be used", str(error))
    return usable, reports
