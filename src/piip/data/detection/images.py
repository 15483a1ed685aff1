"""The image records of a COCO file and the files they name: found, opened (header only) and compared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from piip.data.detection.annotations import CocoImage
from piip.data.detection.glimpse import name_in_url
from piip.data.find_image import ImageFinder
from piip.data.image_files import ImageError, read_header, upright_size
from piip.data.many_files import of_each
from piip.data.report import CheckReport
from piip.data.values import Ids, as_number
from piip.structures import Size

NAME_KEYS = ("file_name", "filename", "path")
ADDRESS_KEYS = ("coco_url", "flickr_url", "url")
"""keys of an image record that say which file it means, the first that is there"""


def read_images(records: list[Any], folder: Path, ids: Ids, report: CheckReport) -> dict[int, CocoImage]:
    """The usable images, still without objects, by id; everything else goes to `report`."""
    named = _without_repeats(_named_records(records, ids, report), report)
    finder = ImageFinder(folder)
    opened = of_each(lambda name: _open(finder, name), [record["file_name"] for _, record in named])
    images: dict[int, CocoImage] = {}
    named_ids = {image_id: record["file_name"] for image_id, record in named}
    first_record: dict[Path, int] = {}
    for (image_id, record), found in zip(named, opened, strict=True):
        where = f"image {image_id} ({record['file_name']})"
        if isinstance(found, ImageError):
            report.add("left out", "image file that is missing or cannot be read", f"image {image_id}: {found}")
            continue
        path, stored, orientation = found
        frame = _frame(record, stored, orientation, where, report)
        if frame is None:
            continue
        if path in first_record:
            first = first_record[path]
            if named_ids[first] != record["file_name"]:
                report.add("left out", "two file names that lead to one file", f"image {first} and {where}")
                images.pop(first, None)
                continue
            report.add("note", "image file listed twice", f"image {first} and {where}")
        first_record.setdefault(path, image_id)
        images[image_id] = CocoImage(image_id, path, *frame)
    return images


def _named_records(records: list[Any], ids: Ids, report: CheckReport) -> Iterable[tuple[int, dict[str, Any]]]:
    for position, record in enumerate(records):
        image_id = ids(record.get("id")) if isinstance(record, dict) else None
        name = None if image_id is None else _file_name(record)
        if image_id is None:
            report.add("left out", "image record without an integer id", f"record {position}: {record!r:.80}")
        elif name is None:
            report.add("left out", "image record without a file name", f"image {image_id}")
        else:
            yield image_id, record | {"file_name": name}


def _file_name(record: dict[str, Any]) -> str | None:
    """The image's name in the data set: as written, else the end of its address, as in LVIS."""
    for key in NAME_KEYS:
        name = record.get(key)
        if isinstance(name, str) and name.strip():
            return name
    for key in ADDRESS_KEYS:
        address = record.get(key)
        if isinstance(address, str) and (name := name_in_url(address)).strip():
            return name
    return None


def _without_repeats(
    named: Iterable[tuple[int, dict[str, Any]]], report: CheckReport
) -> list[tuple[int, dict[str, Any]]]:
    """One record per id. Two files under one id are both left out: whose objects are whose cannot be told."""
    first: dict[int, dict[str, Any]] = {}
    ambiguous: set[int] = set()
    for image_id, record in named:
        kept = first.setdefault(image_id, record)
        if kept is record:
            continue
        names = f"image {image_id} ({kept['file_name']}, {record['file_name']})"
        if kept["file_name"] == record["file_name"]:
            report.add("repaired", "image record repeated", names)
        else:
            report.add("left out", "image id used for different files", names)
            ambiguous.add(image_id)
    return [(image_id, record) for image_id, record in first.items() if image_id not in ambiguous]


def _open(finder: ImageFinder, name: str) -> tuple[Path, Size, int] | ImageError:
    try:
        path = finder(name)
        return (path, *read_header(path))
    except ImageError as error:
        return error


def _frame(
    record: dict[str, Any], stored: Size, orientation: int, where: str, report: CheckReport
) -> tuple[Size, bool] | None:
    """Size of the frame that the annotations are in, and whether it is the upright one; None if neither fits.

    Where the EXIF orientation turns an image by 90 degrees, the record's width and height tell which way the
    annotation tool saw it, unless the objects say otherwise (`frames`). Where they cannot tell (a square image, a
    half turn), upright is assumed, since that is what today's tools show.
    """
    upright = upright_size(stored, orientation)
    given = (as_number(record.get("height")), as_number(record.get("width")))
    if None in given or 0 in given:
        report.add("repaired", "image record without width and height", where)
        return upright, True
    if given == upright:
        if orientation != 1 and upright == stored:
            report.add("note", "EXIF orientation that the record cannot confirm (upright assumed)", where)
        return upright, True
    if given == stored:
        return stored, False
    example = f"{where}: {_text(given[::-1])} in the annotations, {_text(upright[::-1])} in the file"
    report.add("left out", "image whose size disagrees with its file", example)
    return None


def _text(size: tuple[Any, Any]) -> str:
    return f"{size[0]:g} x {size[1]:g}"
