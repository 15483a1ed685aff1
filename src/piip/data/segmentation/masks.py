"""Images with label masks: found, checked and opened for training and evaluation.

A mask is a PNG (or TIFF, GIF, BMP) of the image's size whose values are classes or are declared as ignored. Every
mask is read once before anything is trained on it: one wrong value in it would otherwise show after hours, as a crash
or as bad figures.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from piip.console import encodable
from piip.data.decode import decode_for, decode_values
from piip.data.image_files import ImageError, read_header, upright_size
from piip.data.layout import SplitName, images_below
from piip.data.opening import chosen
from piip.data.packed import Packed
from piip.data.report import DataError, Finding, Findings, encodable_keys, nothing_found
from piip.data.segmentation.folders import (
    Description,
    MaskSplit,
    ade20k_description,
    find_mask_splits,
    read_description,
)
from piip.data.segmentation.pairs import paired
from piip.data.whole_images import UNDECODABLE, undecodable
from piip.structures import IGNORED, Size

READERS = 4
"""threads that read masks in a check"""


class LabelledImage(NamedTuple):
    """One image and its mask."""

    path: Path
    mask: Path
    size: Size
    """of both"""
    upright: bool = True
    """whether the mask is made for the upright image, or for the pixels as they are stored"""


class PackedLabelledImages(Packed[LabelledImage]):
    """Images and their masks, as a list of `LabelledImage` would have them: rows, and paths."""

    ROW = struct.Struct("<qqqqq?")
    """place and lengths of the two paths, height, width, upright"""

    def packed(self, records: Iterable[LabelledImage]) -> tuple[bytearray, bytearray]:
        """As of `Packed`."""
        rows, texts = bytearray(), bytearray()
        for image in records:
            path, mask = os.fsencode(image.path), os.fsencode(image.mask)
            rows += self.ROW.pack(len(texts), len(path), len(mask), *image.size, image.upright)
            texts += path + mask
        return rows, texts

    def record(self, row: tuple[Any, ...]) -> LabelledImage:
        """As of `Packed`."""
        place, length, of_mask, height, width, upright = row
        names = bytes(self.parts[1][place : place + length + of_mask])
        path, mask = (Path(os.fsdecode(name)) for name in (names[:length], names[length:]))
        return LabelledImage(path, mask, (height, width), upright)


@dataclass(frozen=True)
class MaskData:
    """One checked split."""

    images: Sequence[LabelledImage]
    """where they were read, `PackedLabelledImages`"""
    description: Description
    """what the values in the masks stand for"""
    pixels: tuple[int, ...]
    """annotated pixels of each class, in label order"""
    containing: tuple[int, ...]
    """pixels of the images that have the class at all, in label order"""
    report: Findings = field(default_factory=nothing_found, compare=False, repr=False)
    """what was left out and why"""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in label order."""
        return self.description.classes

    def with_classes(self, classes: tuple[str, ...]) -> MaskData:
        """The same images with the labels of `classes`; DataError where a class of the data is not among them."""
        return relabelled(self, classes)


@dataclass
class MaskReport(Findings):
    """What was found in one split; `class_counts` are pixels."""

    ignored_pixels: int = 0
    classes_in_images: dict[str, int] = field(default_factory=dict)
    """images that have the class"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        return {
            "file": encodable(self.file),
            "format": self.format,
            "images": self.images,
            "class_pixels": encodable_keys(self.class_counts),
            "class_images": encodable_keys(self.classes_in_images),
            "ignored_pixels": self.ignored_pixels,
            "findings": self.findings_json(),
        }

    def table(self, title: str) -> Table:
        """The findings for `rich.print`."""
        every = sum(self.class_counts.values()) + self.ignored_pixels
        share = self.ignored_pixels / every if every else 0.0
        caption = (
            f"{self.images} images with masks, {len(self.class_counts)} classes, {share:.1%} of the pixels ignored"
        )
        return self.findings_table(title, caption)


def open_masks(root: str | Path, split: str) -> MaskData:
    """The checked images of one split ("train", "val" or "test").

    Raises DataError that names the splits there are, or the first files whose masks do not fit.
    """
    data, report = read_masks(root, chosen(root, find_mask_splits(root), split))
    wrong = [finding for finding in report.sorted_findings() if finding.severity == "error"]
    if wrong:
        listed = "; ".join(f"{finding.kind}: {_listed(finding)}" for finding in wrong)
        raise DataError(f"{report.file}: {listed} (`piip data check` writes a full list)")
    if not data.images:
        raise DataError(f"{report.file}: no image with a mask is usable")
    return data


def check_masks(root: str | Path) -> dict[SplitName, MaskReport]:
    """A report per split; DataError where the classes are not described. Every image is decoded."""
    reports: dict[SplitName, MaskReport] = {}
    for name, split in find_mask_splits(root).items():
        data, reports[name] = read_masks(root, split)
        for reason in undecodable(image.path for image in data.images).values():
            reports[name].add("left out", UNDECODABLE, reason)
            reports[name].images -= 1
    return reports


def read_masks(root: str | Path, split: MaskSplit) -> tuple[MaskData, MaskReport]:
    """Check all images and masks of a split; images whose files cannot be used are left out and reported."""
    description = read_description(root) or ade20k_description(root)
    if description is None:
        raise DataError(_undescribed(root, split))
    report = MaskReport(file=str(split.masks), format="images and masks")
    pairs = paired(split, report)
    with ThreadPoolExecutor(READERS) as pool:
        looked_at = list(pool.map(_look, pairs))
    every = np.array([*description.values, *description.ignored])
    images, totals, containing = [], np.zeros(0, dtype=np.int64), np.zeros(len(description.values), dtype=np.int64)
    in_images = np.zeros(len(description.values), dtype=np.int64)
    for (path, mask), seen in zip(pairs, looked_at, strict=True):
        if isinstance(seen, str):
            report.add("left out", "file cannot be read", seen)
            continue
        counts, sizes = seen
        image = _matched(path, mask, sizes, report)
        strange = sorted(set(np.flatnonzero(counts).tolist()) - set(every.tolist()))
        if strange:
            report.add("error", "mask values that are no class and not ignored", f"{mask}: {_values(strange)}")
        if image is None:
            continue
        images.append(image)
        totals = _sum(totals, counts)
        present = _take(counts, description.values)
        containing += np.where(present > 0, counts.sum(), 0)
        in_images += present > 0
    pixels = _take(totals, description.values)
    report.images, report.listed = len(images), len(pairs)
    report.class_counts = dict(zip(description.classes, pixels.tolist(), strict=True))
    report.classes_in_images = dict(zip(description.classes, in_images.tolist(), strict=True))
    report.ignored_pixels = int(_take(totals, tuple(description.ignored)).sum())
    _note_absent(report)
    if images and not pixels.any():
        report.add("error", "no annotated pixel", f"all pixels of {len(images)} masks are ignored")
    return MaskData(
        PackedLabelledImages(images), description, tuple(pixels.tolist()), tuple(containing.tolist()), report
    ), report


def load_pair(
    image: LabelledImage, description: Description, needed: Callable[[Size], Size] = lambda size: size
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [H, W, 3] and labels int16 [H, W], `IGNORED` where the mask says so.

    Of a large photo, not of its mask, the pixels may be fewer, see `decode_for`. Raises ImageError, naming the file, if
    one has changed since the check.
    """
    pixels, size = decode_for(image.path, needed, upright=image.upright)
    values = decode_values(image.mask)
    for path, found in ((image.path, size), (image.mask, values.shape)):
        if tuple(found) != image.size:
            raise ImageError(f"{path}: {found[1]} x {found[0]} pixels, but {image.size[1]} x {image.size[0]} when the "
                             "data was read; has the file changed?")  # fmt: skip
    table = np.full(max(int(values.max()), *description.values, *description.ignored) + 1, -2, dtype=np.int16)
    table[list(description.values)] = np.arange(len(description.values))
    table[list(description.ignored)] = IGNORED
    labels = table[values]
    if (labels < IGNORED).any():
        raise ImageError(f"{image.mask}: has the value {int(values[labels < IGNORED][0])}, which is no class and not "
                         "ignored, and was not there when the data was read")  # fmt: skip
    return pixels, labels


def relabelled(data: MaskData, classes: tuple[str, ...]) -> MaskData:
    """`data` in the label order of `classes`, which may have more."""
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        raise DataError(f"the data has classes that the model does not know: {', '.join(unknown[:8])}")
    if data.classes == classes:
        return data
    spare = max((*data.description.values, *data.description.ignored)) + 1
    position = {name: label for label, name in enumerate(data.classes)}
    values, pixels, containing, colours = [], [], [], []
    own = data.description.colours
    for name in classes:
        label = position.get(name)
        values.append(spare if label is None else data.description.values[label])
        spare += label is None
        pixels.append(0 if label is None else data.pixels[label])
        containing.append(0 if label is None else data.containing[label])
        colours.append(None if label is None or own is None else own[label])
    description = Description(
        classes=classes, values=tuple(values), ignored=data.description.ignored,
        colours=None if own is None else tuple(colours),
    )  # fmt: skip
    return replace(data, description=description, pixels=tuple(pixels), containing=tuple(containing))


def _look(pair: tuple[Path, Path]) -> str | tuple[np.ndarray, tuple[Size, Size, Size]]:
    """How often each value is in the mask, and the sizes (mask, image upright, image as stored); or what is wrong."""
    path, mask = pair
    try:
        stored, orientation = read_header(path)
        values = decode_values(mask)
        if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            return f"{mask}: values from {values.min()} to {values.max()}; use 0 to 65535"
    except ImageError as error:
        return str(error)
    height, width = values.shape
    return np.bincount(values.reshape(-1)), ((height, width), upright_size(stored, orientation), stored)


def _matched(path: Path, mask: Path, sizes: tuple[Size, Size, Size], report: MaskReport) -> LabelledImage | None:
    size, upright, stored = sizes
    if size in (upright, stored):
        return LabelledImage(path, mask, size, upright=size == upright)
    report.add("error", "mask of another size than its image",
               f"{mask}: {size[1]} x {size[0]}, {path.name}: {upright[1]} x {upright[0]}")  # fmt: skip
    return None


def _note_absent(report: MaskReport) -> None:
    for name, pixels in report.class_counts.items():
        if not pixels:
            report.add("note", "class without a pixel", name)


def _undescribed(root: str | Path, split: MaskSplit) -> str:
    found: set[int] = set()
    for mask in images_below(split.masks)[:50]:
        try:
            found |= set(np.unique(decode_values(mask)).tolist())
        except ImageError as error:
            return str(error)
    return (
        f"{root}: nothing says what the values in the masks mean (the first masks hold {_values(sorted(found))}). "
        'Write classes.json there, for example {"classes": ["road", "car"], "ignore_index": 255} for the values 0 and '
        '1, or {"classes": {"7": "road", "26": "car"}, "ignore_index": [0, 255]}; "ignore_index" may be null'
    )


def _values(values: list[int]) -> str:
    """At most ten values, for messages."""
    return ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")


def _listed(finding: Finding) -> str:
    more = f" and {finding.count - len(finding.examples)} more" if finding.count > len(finding.examples) else ""
    return ", ".join(finding.examples) + more


def _take(counts: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    """`counts[values]`, zero for values beyond its end."""
    return np.array([counts[value] if value < len(counts) else 0 for value in values], dtype=np.int64)


def _sum(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The sum of two counts of different length."""
    longest = np.zeros(max(len(first), len(second)), dtype=np.int64)
    longest[: len(first)] += first
    longest[: len(second)] += second
    return longest
