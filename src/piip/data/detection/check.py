"""`piip data check`: read every split of a data set as training would, and report what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from piip.console import Terminal
from piip.data.detection.annotations import CocoData
from piip.data.detection.coco import read_split
from piip.data.detection.splits import find_splits
from piip.data.layout import SplitName
from piip.data.opening import check_each
from piip.data.report import CheckReport, DataError, Finding
from piip.data.whole_images import UNDECODABLE, undecodable

DECLARED = ("COCO", "YOLO", "")
"""formats whose files declare their classes in any case"""

__all__ = ["CheckReport", "DataError", "Finding", "check", "print_reports"]


def check(path: str | Path) -> dict[SplitName, CheckReport]:
    """A report per split of the data set at `path` (a folder or an annotation file).

    A split that cannot be used at all has a report with one finding of severity "error". Raises `DataError` only
    where no data set is found. Nothing is changed on disk.
    """
    usable, reports = check_each(
        find_splits(path),
        read_split,
        lambda split: CheckReport(file=str(split.annotation_file)),
    )
    for name, data in usable.items():
        _leave_out_undecodable(data, reports[name])
    _compare_splits(usable, reports)
    return reports


def _same_names(first: CocoData, other: CocoData) -> bool:
    return sorted(first.classes) == sorted(other.classes) and len(set(first.classes)) == len(first.classes)


def _compare_found(first: CocoData, other: CocoData, name: SplitName, report: CheckReport) -> None:
    """For formats whose classes are those that occur: an absent one is no fault, one that training lacks is."""
    for absent in (one for one in first.classes if one not in other.classes):
        report.add("note", f"class of {name} without objects", absent)
    for unknown in (one for one in other.classes if one not in first.classes):
        report.add("error", f"class that {name} does not have", unknown)


def print_reports(reports: Mapping[SplitName, CheckReport], console: Console | None = None) -> None:
    """One table per split, as text for people."""
    console = console or Terminal()
    for name, report in reports.items():
        console.print(report.table(f"{name}: {report.file}"))


def _leave_out_undecodable(data: CocoData, report: CheckReport) -> None:
    """What training will meet and pass over."""
    broken = undecodable(image.path for image in data.images)
    for image in data.images:
        if image.path not in broken:
            continue
        report.add("left out", UNDECODABLE, f"image {image.id}: {broken[image.path]}")
        report.images -= 1
        report.crowds -= sum(obj.crowd for obj in image.objects)
        for obj in image.objects:
            if not obj.crowd:
                report.objects -= 1
                report.class_counts[data.classes[obj.label]] -= 1


def _compare_splits(usable: dict[SplitName, CocoData], reports: Mapping[SplitName, CheckReport]) -> None:
    """What only shows between splits: other classes than in training, and images of training met again."""
    names = list(usable)
    for name in names[1:]:
        first, other = usable[names[0]], usable[name]
        ours = list(zip(other.category_ids, other.classes, strict=True))
        theirs = list(zip(first.category_ids, first.classes, strict=True))
        odd = sorted(set(ours) ^ set(theirs))
        if reports[name].format not in DECLARED:
            _compare_found(first, other, names[0], reports[name])
        elif ours != theirs and _same_names(first, other):
            reports[name].add("note", f"categories with other ids than in {names[0]} (names count)", f"{odd[:5]}")
        elif ours != theirs:
            reports[name].add("error", f"categories differ from those of {names[0]}", f"{odd[:5]}")
    met: dict[tuple[str, int], SplitName] = {}
    for name in names:
        for image in usable[name].images:
            key = (image.path.name, image.path.stat().st_size)
            if met.setdefault(key, name) != name:
                reports[name].add("note", f"image also in {met[key]} (same name and length)", image.path.name)
