"""Images and their masks, brought together by their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from piip.data.image_files import is_jpeg
from piip.data.layout import images_below
from piip.data.report import Findings
from piip.data.segmentation.folders import MaskSplit
from piip.files import comparable

_ENDING = re.compile(r"[-_. ]+[A-Za-z][\w-]*|")
"""what may follow the part of a name that image and mask share: a word after a separator, as in "_mask", or nothing"""
_BEGINNING = re.compile(r"[A-Za-z]\w*?[-_. ]+|")
EXAMPLES = 20
"""images whose names are compared with those of all masks: some may have none"""


class Naming(NamedTuple):
    """How a mask's name follows from its image's: `image` is taken off, at the beginning and the end, `mask` put on."""

    image: tuple[str, str]
    mask: tuple[str, str]

    def of(self, stem: str) -> str | None:
        """The name of the mask of an image; None if the image is not named so."""
        (beginning, ending), (before, after) = self.image, self.mask
        if not (stem.startswith(beginning) and stem.endswith(ending)) or len(stem) <= len(beginning) + len(ending):
            return None
        return before + stem[len(beginning) : len(stem) - len(ending)] + after

    def __str__(self) -> str:
        one, other = ("...".join(affixes) for affixes in (self.image, self.mask))
        return f"{one} with {other}"


def paired(split: MaskSplit, report: Findings) -> list[tuple[Path, Path]]:
    """Images with their masks: of one name, or named after each other in one way. What has no partner is reported."""
    images = images_below(split.images)
    masks = _by_name(split.masks, report)
    found: dict[Path, Path] = {}
    for file in images:
        mask = masks.pop(_key(file, split.images), None)
        if mask is not None:
            found[file] = mask
    rest = [file for file in images if file not in found]
    naming = _naming([_key(file, split.images) for file in rest], set(masks))
    for file in rest if naming else ():
        mask = masks.pop(naming.of(_key(file, split.images)) or "", None) if naming else None
        if mask is not None:
            found[file] = mask
            report.add("note", f"masks named after their images ({naming})", f"{file.name} and {mask.name}")
    for file in images:
        if file not in found:
            report.add("left out", "image without a mask", str(file))
    for mask in masks.values():
        report.add("note", "mask without an image", str(mask))
    if images and masks and not found:
        names = ", ".join(sorted(file.name for file in masks.values())[:3])
        report.add("error", "no mask has the name of an image", f"{images[0].name}, but the masks are {names}")
    return [(file, found[file]) for file in images if file in found]


def _by_name(folder: Path, report: Findings) -> dict[str, Path]:
    """The masks below a folder by their `_key`. Of two of one name a JPEG, which is no mask, gives way to the other."""
    masks: dict[str, Path] = {}
    for file in images_below(folder):
        other = masks.setdefault(_key(file, folder), file)
        if other is file:
            continue
        if (lossy := is_jpeg(other)) == is_jpeg(file):
            report.add("error", "two masks of one name, one of which is not meant", f"{other} and {file.name}")
            continue
        kept, left = (file, other) if lossy else (other, file)
        masks[_key(file, folder)] = kept
        report.add("left out", "JPEG beside a mask of its name", f"{left}, for {kept.name}")
    return masks


def _key(file: Path, folder: Path) -> str:
    """The name of a file below its folder without its ending, however it writes capitals and accents."""
    return comparable(file.relative_to(folder).with_suffix("").as_posix())


def _naming(images: list[str], masks: set[str]) -> Naming | None:
    """The way of naming that brings most images and masks together; None if there is none, or if two do as well."""
    if not images or not masks:
        return None
    ways = {naming for image in images[:EXAMPLES] for mask in masks for naming in _ways(image, mask)}
    counts = {way: sum(way.of(image) in masks for image in images) for way in ways}
    best = [way for way, count in counts.items() if count == max(counts.values())]
    meant = {tuple(way.of(image) for image in images) for way in best}
    return min(best) if len(meant) == 1 else None


def _ways(image: str, mask: str) -> list[Naming]:
    """The ways of naming by which `mask` can be that of `image`: they begin alike, or they end alike."""
    common = next((n for n, (a, b) in enumerate(zip(image, mask, strict=False)) if a != b), min(len(image), len(mask)))
    ways = [
        Naming(("", image[length:]), ("", mask[length:]))
        for length in {common, len(re.sub(r"[-_. ]+[A-Za-z]*$", "", image[:common]))}
        if length and _ENDING.fullmatch(image[length:]) and _ENDING.fullmatch(mask[length:])
    ]
    if len(mask) > len(image) and mask.endswith(image) and _BEGINNING.fullmatch(mask[: -len(image)]):
        ways.append(Naming(("", ""), (mask[: -len(image)], "")))
    return ways
