"""DOTA: a text file of turned boxes for every image; the upright boxes around them are used.

    train/images/P0001.png, train/labelTxt/P0001.txt

A line has four corners, a class and a flag for difficult objects: `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`. Lines in
front may name the source of the image and its resolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from piip.data.find_image import ImageFinder
from piip.data.formats.places import Kind, find_places
from piip.data.formats.records import Content, Format, FormatSplit, Records, Source, Split
from piip.data.formats.shapes import bounds, numbers
from piip.data.image_files import ImageError
from piip.data.layout import SplitName
from piip.data.report import CheckReport, DataError
from piip.data.text_files import beginning_of, read_lines

NAME = "DOTA"
CORNERS = 8
"""numbers"""
HEADER = re.compile(r"(imagesource|gsd|acquisition dates|image *id)\s*:", re.IGNORECASE)


def _is_one(file: Path) -> bool:
    lines = [line for line in beginning_of(file, 4096).splitlines() if line.strip()]
    first = next((line for line in lines if not HEADER.match(line)), None)
    if first is None:
        return bool(lines)
    words = first.split()
    known = file.parent.name.lower().startswith(("labeltxt", "annfiles"))
    return (len(words) > CORNERS and numbers(words[:CORNERS]) is not None
            and (known or numbers([words[CORNERS]]) is None))  # fmt: skip


KIND = Kind(("labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "labelTxt-v2.0", "annfiles"), ".txt", _is_one)


def find(root: Path) -> dict[SplitName, Split]:
    """The splits of a DOTA data set; empty where there is none."""
    if root.is_file():
        return {}
    found = find_places(root, KIND)
    every = tuple(place.labels for place in found.values())
    return {
        split: FormatSplit(place.labels, place.images, Format(NAME, partial(read, every=every)))
        for split, place in found.items()
    }


def read(labels: Path, images: Source, report: CheckReport, every: Iterable[Path]) -> Content:
    """One split in COCO's form; `every` are the folders of all splits, whose classes are one list."""
    assert isinstance(images, Path)
    records = Records(report, sorted(_classes(every)))
    finder = ImageFinder(*dict.fromkeys((images, labels)))
    for file in KIND.files(labels):
        try:
            lines = read_lines(file)
        except DataError as error:
            report.add("left out", "annotation file that cannot be read", str(error))
            continue
        image_id = records.image(_image_name(file.relative_to(labels), finder, images))
        for number, line in enumerate(lines, start=1):
            if line.strip() and not HEADER.match(line):
                _object(line, f"{file.name}, line {number}", image_id, records)
    return records.content(images)


def _classes(folders: Iterable[Path]) -> set[str]:
    names = set()
    for file in (file for folder in folders for file in KIND.files(folder)):
        try:
            lines = read_lines(file)
        except DataError:
            continue
        names |= {words[CORNERS] for line in lines if len(words := line.split()) > CORNERS and not HEADER.match(line)}
    return names


def _image_name(file: Path, finder: ImageFinder, images: Path) -> str:
    """Of the image that is called like a `file` below the folder of labels."""
    name = file.with_suffix("").as_posix()
    try:
        return finder(name).relative_to(images).as_posix()
    except (ImageError, ValueError):
        return name


def _object(line: str, where: str, image_id: int, records: Records) -> None:
    words = line.split()
    sides = numbers(words[:CORNERS])
    if sides is None or len(words) <= CORNERS:
        records.report.add("left out", "line that is not four corners and a class", f"{where}: {line[:60]!r}")
        return
    points = list(zip(sides[::2], sides[1::2], strict=True))
    x1, y1, x2, y2 = box = bounds(points)
    if {*points} != {(x1, y1), (x2, y1), (x2, y2), (x1, y2)}:
        records.report.add("note", "rotated box (the upright one around it is used)", where)
    records.box(image_id, words[CORNERS], box)
