"""Pascal VOC: an .xml file of boxes for every image, in `Annotations/` or beside the images.

    VOC2007/Annotations/000001.xml, JPEGImages/000001.jpg, ImageSets/Main/train.txt

VOC's own files count pixels from 1 and the last one in (they name their `database`); those of all tools that write the
format count from 0. An outline (`polygon`, as Roboflow writes it) is read where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from piip.data.find_image import ImageFinder
from piip.data.formats.places import Kind, Place, find_places
from piip.data.formats.records import Content, Format, FormatSplit, Records, Source, Split
from piip.data.formats.shapes import numbers
from piip.data.image_files import ImageError
from piip.data.layout import NAMES, SplitName, child, child_folder, images_below
from piip.data.report import CheckReport, DataError
from piip.data.text_files import LARGEST_DESCRIPTION, read_lines
from piip.data.xml_files import Element, children_of_root, root_tag
from piip.files import comparable

NAME = "Pascal VOC"
KIND = Kind(("Annotations", "annotation", "xml", "xmls", "labels"), ".xml", lambda file: root_tag(file) == "annotation")
LISTS: dict[SplitName, tuple[str, ...]] = {
    split: tuple(f"{name}.txt" for name in (*names, *(("trainval", "default") if split == "train" else ())))
    for split, names in NAMES.items()
}
"""files in `ImageSets/Main` that list the images of a split"""
OFFICIAL = "The VOC"
"""how the `database` of VOC's own files begins"""
SIDES = ("xmin", "ymin", "xmax", "ymax")


def find(root: Path) -> dict[SplitName, Split]:
    """The splits of a VOC data set; empty where there is none."""
    found = find_places(root, KIND)
    if not found:
        inside = [folder for folder in sorted(root.glob("VOC*")) if folder.is_dir()] if root.is_dir() else []
        sets = [folder for folder in inside if find(folder)]
        if len(sets) > 1:
            raise DataError(f"{root}: holds {len(sets)} Pascal VOC data sets ({', '.join(f.name for f in sets)}); "
                            "name one of them")  # fmt: skip
        return find(sets[0]) if sets else {}
    every = tuple(place.labels for place in found.values())
    lists = _lists(root)
    if len(found) == 1 and lists:
        (place,) = found.values()
        return {split: _split(place, every, file) for split, file in lists.items()}
    return {split: _split(place, every, None) for split, place in found.items()}


def _split(place: Place, every: tuple[Path, ...], listed: Path | None) -> Split:
    return FormatSplit(place.labels, place.images, Format(NAME, partial(read, every=every, listed=listed)))


def _lists(root: Path) -> dict[SplitName, Path]:
    sets = child_folder(root, ("ImageSets",))
    main = None if sets is None else (child_folder(sets, ("Main",)) or sets)
    found = {} if main is None else {split: child(main, names) for split, names in LISTS.items()}
    return {split: file for split, file in found.items() if file is not None and file.is_file()}


def read(
    labels: Path, images: Source, report: CheckReport, every: tuple[Path, ...], listed: Path | None = None
) -> Content:
    """One split in COCO's form; `every` are the folders of all splits, whose classes are one list."""
    assert isinstance(images, Path)
    files = {comparable(file.relative_to(labels).with_suffix("").as_posix()): file for file in KIND.files(labels)}
    chosen = list(files.values()) if listed is None else _listed(listed, files, report)
    parsed = {file: _parsed(file, report) for file in chosen}
    records = Records(report, _classes(parsed, every))
    finder = ImageFinder(*dict.fromkeys((images, labels)))
    for file, root in parsed.items():
        if root is None:
            continue
        image_id = records.image(_image_name(file, labels, root, finder, images, report),
                                 root.value("size", "width"), root.value("size", "height"))  # fmt: skip
        for obj in root.all("object"):
            _object(obj, image_id, records, official=(root.value("source", "database") or "").startswith(OFFICIAL))
    if listed is None:
        _note_unlabelled(images, files, report)
    return records.content(images)


def _parsed(file: Path, report: CheckReport | None) -> Element | None:
    try:
        return Element("annotation", {}, children=list(children_of_root(file, LARGEST_DESCRIPTION)))
    except DataError as error:
        if report is not None:
            report.add("left out", "annotation file that cannot be read", str(error))
        return None


def _classes(parsed: dict[Path, Element | None], every: Iterable[Path]) -> list[str]:
    """All names in the data set, in order: so its splits have the same classes."""
    others = (file for folder in every for file in KIND.files(folder) if file not in parsed)
    roots = chain(parsed.values(), (_parsed(file, None) for file in others))
    names = (obj.value("name") for root in roots if root is not None for obj in root.all("object"))
    return sorted({name for name in names if name})


def _listed(listed: Path, files: dict[str, Path], report: CheckReport) -> list[Path]:
    """The annotation files that a list of images names; a line may end with a flag, as in lists of one class."""
    found = []
    for line in dict.fromkeys(line.strip() for line in read_lines(listed)):
        names = (line, line.strip('"'), re.sub(r"\s+-?[01]$", "", line))
        file = next((files[comparable(name)] for name in names if comparable(name) in files), None)
        if file is not None:
            found.append(file)
        elif line:
            report.add("left out", "listed image without an annotation file", f"{listed.name}: {line}")
    return found


def _image_name(file: Path, labels: Path, root: Element, finder: ImageFinder, images: Path, report: CheckReport) -> str:
    """The image that is called like the annotation file, else the one that it names: names inside go stale."""
    written = root.value("filename") or ""
    try:
        own = finder(file.relative_to(labels).with_suffix("").as_posix())
    except ImageError:
        return written or file.stem
    if written and comparable(Path(written.replace("\\", "/")).stem) != comparable(own.stem):
        report.add("note", "annotation file that names another image (the one called like it is used)",
                   f"{file.name}: {written}")  # fmt: skip
    return own.relative_to(images).as_posix() if own.is_relative_to(images) else own.name


def _object(obj: Element, image_id: int, records: Records, official: bool) -> None:
    name = obj.value("name")
    if obj.value("difficult") == "1":
        records.report.add("note", 'object marked "difficult" (used like others)',
                           f"{records.images[image_id - 1]['file_name']}: {name}")  # fmt: skip
    outline = _polygon(obj.first("polygon"))
    box = obj.first("bndbox")
    if outline:
        records.polygon(image_id, name, outline)
    elif box is None:
        records.leave_out("object without a box", image_id, name)
    else:
        sides: list[Any] = [box.value(side) for side in SIDES]
        given = numbers(sides)
        records.box(image_id, name, sides if given is None or not official else _from_zero(given))


def _from_zero(sides: list[float]) -> list[float]:
    """From pixels counted from 1, the last one in, to distances from the corner of the image."""
    x1, y1, x2, y2 = sides
    return [x1 - 1, y1 - 1, x2, y2]


def _polygon(element: Element | None) -> list[tuple[float, float]]:
    """The corners of a `polygon`, written as x1, y1, x2, y2, ... or as `pt` with x and y; none where it has none."""
    if element is None:
        return []
    found = [(child.value("x"), child.value("y")) for child in element.all("pt")]
    if not found:
        values = {child.tag: child.text for child in element.children}
        found = [(values[f"x{n}"], values.get(f"y{n}")) for n in range(1, len(values) + 1) if f"x{n}" in values]
    sides = numbers(side for point in found for side in point)
    return list(zip(sides[::2], sides[1::2], strict=True)) if sides and len(found) > 2 else []


def _note_unlabelled(images: Path, files: dict[str, Path], report: CheckReport) -> None:
    named = {comparable(file.stem) for file in files.values()}
    for file in images_below(images):
        if comparable(file.stem) not in named:
            report.add("note", "image without an annotation file (not used)", file.name)
