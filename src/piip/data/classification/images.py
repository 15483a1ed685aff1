"""Classified images: read, checked and in label order."""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from piip.data.classification.splits import ClassSplit, find_class_splits, list_images
from piip.data.decode import decode_image
from piip.data.image_files import ImageError, read_header
from piip.data.layout import SplitName
from piip.data.many_files import of_each
from piip.data.opening import check_each, chosen
from piip.data.packed import Packed
from piip.data.report import DataError, Findings, nothing_found

THREADS = 8
"""that decode files"""


class ClassImage(NamedTuple):
    """One image and what it shows."""

    path: Path
    label: int
    """0-based"""


class PackedClassImages(Packed[ClassImage]):
    """Images and what they show, as a list of `ClassImage` would have them: rows, and paths."""

    ROW = struct.Struct("<qqq")
    """place and length of the path, label"""

    def packed(self, records: Iterable[ClassImage]) -> tuple[bytearray, bytearray]:
        """As of `Packed`."""
        rows, texts = bytearray(), bytearray()
        for image, label in records:
            path = os.fsencode(image)
            rows += self.ROW.pack(len(texts), len(path), label)
            texts += path
        return rows, texts

    def record(self, row: tuple[Any, ...]) -> ClassImage:
        """As of `Packed`."""
        place, length, label = row
        return ClassImage(Path(os.fsdecode(bytes(self.parts[1][place : place + length]))), label)

    def labels(self) -> np.ndarray:
        """Of all images, [N] int64."""
        return np.frombuffer(self.parts[0], np.int64).reshape(-1, 3)[:, 2]

    def relabelled(self, labels: Sequence[int]) -> PackedClassImages:
        """The same with `labels[label]` in place of each label."""
        rows = np.frombuffer(self.parts[0], np.int64).reshape(-1, 3).copy()
        rows[:, 2] = np.array(labels, np.int64)[rows[:, 2]] if len(rows) else 0
        return PackedClassImages.of_buffers((rows.tobytes(), self.parts[1]))


@dataclass(frozen=True)
class ClassData:
    """The usable images of one split."""

    source: Path
    """the folder or table that they were found by"""
    images: Sequence[ClassImage]
    """where they were read, `PackedClassImages`"""
    classes: tuple[str, ...]
    """names, in label order"""
    report: Findings = field(default_factory=nothing_found, compare=False, repr=False)
    """what was left out and why"""

    @property
    def counts(self) -> tuple[int, ...]:
        """Images per class, in label order."""
        labels = PackedClassImages.of(self.images).labels()
        return tuple(np.bincount(labels, minlength=len(self.classes)).tolist())

    def with_classes(self, classes: Sequence[str]) -> ClassData:
        """The same images with the labels of `classes`; DataError where these lack a class of the data."""
        label_of = {name: label for label, name in enumerate(classes)}
        unknown = [name for name in self.classes if name not in label_of]
        if unknown:
            raise DataError(f"{self.source}: holds classes that the model does not know: {', '.join(unknown[:8])}; "
                            f"it knows {', '.join(list(classes)[:8])}")  # fmt: skip
        images = PackedClassImages.of(self.images).relabelled([label_of[name] for name in self.classes])
        return replace(self, images=images, classes=tuple(classes))


class ClassReport(Findings):
    """All findings of one split of classified images."""

    def table(self, title: str) -> Table:
        """The findings for `rich.print`."""
        counts = self.class_counts.values()
        least, most = min(counts, default=0), max(counts, default=0)
        spread = f", {least} images each" if least == most else f", {least} to {most} images each"
        return self.findings_table(title, f"{self.images} images, {len(counts)} classes{spread if counts else ''}")


def read_split(split: ClassSplit) -> tuple[ClassData, ClassReport]:
    """The images of a split that can be opened, and what was found wrong; DataError if there is none."""
    data, report, _ = _read(split, whole=False)
    return data, report


def open_class_split(path: str | Path, split: str) -> ClassData:
    """One split ("train", "val" or "test") of the data set at `path`; DataError names the splits there are."""
    return read_split(chosen(path, find_class_splits(path), split))[0]


def check_classes(path: str | Path) -> dict[SplitName, ClassReport]:
    """A report per split of the data set at `path`; every image is decoded and compared with the others.

    A split that cannot be used at all has a report with one finding of severity "error". Raises DataError only where
    no data set is found. Nothing is changed on disk.
    """

    def read(split: ClassSplit) -> tuple[tuple[ClassData, list[str]], ClassReport]:
        data, report, digests = _read(split, whole=True)
        return (data, digests), report

    usable, reports = check_each(find_class_splits(path), read, lambda split: ClassReport(str(split.source)))
    _compare_classes({name: data for name, (data, _) in usable.items()}, reports)
    _find_repeats(usable, reports)
    return reports


def _read(split: ClassSplit, whole: bool) -> tuple[ClassData, ClassReport, list[str]]:
    """With `whole`, files are decoded and not only opened, and come with a digest of their bytes."""
    written = "class folders" if split.source.is_dir() else "table of images"
    report = ClassReport(str(split.source), format=written)
    listing = list_images(split, report)
    paths = [path for path, _ in listing.entries]
    opened = _digests(paths) if whole else of_each(_open, paths)
    kept: list[tuple[Path, str]] = []
    digests: list[str] = []
    for (path, name), outcome in zip(listing.entries, opened, strict=True):
        if isinstance(outcome, ImageError):
            report.add("left out", "file that cannot be read", str(outcome))
        else:
            kept.append((path, name))
            digests.append(outcome)
    if not kept:
        raise DataError(f"{split.source}: has no image that can be used ({len(listing.entries)} files listed)"
                        f"{report.first_reason()}")  # fmt: skip
    counts = Counter(name for _, name in kept)
    for name in listing.classes:
        if not counts[name]:
            report.add("left out", "class without images", name)
    classes = tuple(name for name in listing.classes if counts[name])
    label_of = {name: label for label, name in enumerate(classes)}
    report.listed = len(listing.entries)
    report.images, report.class_counts = len(kept), {name: counts[name] for name in classes}
    if len(classes) == 1:
        report.add("error", "only one class, nothing to tell apart", classes[0])
    images = PackedClassImages(ClassImage(path, label_of[name]) for path, name in kept)
    return ClassData(split.source, images, classes, report), report, digests


def _open(path: Path) -> str | ImageError:
    try:
        read_header(path)
    except ImageError as error:
        return error
    return ""


def _digests(paths: list[Path]) -> list[str | ImageError]:
    """Decoding does without Python's lock."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: Path) -> str | ImageError:
    try:
        decode_image(path)
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(f"{path}: {error}")


def _compare_classes(usable: dict[SplitName, ClassData], reports: dict[SplitName, ClassReport]) -> None:
    """Classes that one split has and another lacks; what is not in the first split cannot be learnt."""
    names = list(usable)
    for name in names[1:]:
        first, other = usable[names[0]], usable[name]
        for missing in (item for item in first.classes if item not in other.classes):
            reports[name].add("note", f"class of {names[0]} without images", missing)
        for unknown in (item for item in other.classes if item not in first.classes):
            reports[name].add("error", f"class that {names[0]} does not have", unknown)


def _find_repeats(usable: dict[SplitName, tuple[ClassData, list[str]]], reports: dict[SplitName, ClassReport]) -> None:
    """Images that are there twice, byte by byte."""
    first: dict[str, tuple[SplitName, str, Path]] = {}
    for split, (data, digests) in usable.items():
        for image, digest in zip(data.images, digests, strict=True):
            name = data.classes[image.label]
            met = first.setdefault(digest, (split, name, image.path))
            if met[2] == image.path:
                continue
            example = f"{_short(met[2])} and {_short(image.path)}"
            if met[0] != split:
                reports[split].add("note", f"same image in {met[0]}", example)
            elif met[1] != name:
                reports[split].add("note", "same image in two classes", example)
            else:
                reports[split].add("note", "same image twice", example)


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])
