"""YOLO's data sets: a `data.yaml`, a text file of normalised boxes or outlines beside every image.

They are read into COCO's form, so that everything after it, the checks and their report included, is the same. The
layout is that of Ultralytics: `images/.../name.jpg` has its objects in `labels/.../name.txt` (or beside it, where no
folder is called "images"), one line each, `class x y width height` (the centre first) or `class x y x y x y ...`,
all in parts of the upright image's sides. In data for poses (`kpt_shape` in the description) a line is a box and then
the keypoints, which are left aside. An image without a text file, or with an empty one, has no objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from piip.data.detection.description import load, split_values, yolo_names
from piip.data.find_image import ImageFinder
from piip.data.formats.records import FEWEST_CORNERS, Source, polygon_area
from piip.data.image_files import ImageError, read_header, upright_size
from piip.data.layout import child, child_folder, images_below, is_hidden
from piip.data.many_files import of_each
from piip.data.report import CheckReport, DataError
from piip.data.text_files import read_lines
from piip.files import comparable
from piip.structures import Size

YAML_SUFFIXES = (".yaml", ".yml")
USUAL_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LIST_SUFFIX = ".txt"
BOX_NUMBERS = 4


def find_yaml(folder: Path) -> Path | None:
    """The file that describes a YOLO data set in `folder`: by its usual name, or the only .yaml that does."""
    usual = child(folder, USUAL_NAMES)
    if usual is not None and usual.is_file() and _describes(usual, broken=True):
        return usual
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in YAML_SUFFIXES)
    found = [file for file in files if not is_hidden(file.name) and _describes(file, broken=False)]
    return found[0] if len(found) == 1 else None


def _describes(file: Path, broken: bool) -> bool:
    """Whether a file names classes and splits; `broken` where it cannot be read, as the reader says what is wrong."""
    try:
        content = load(file)
    except DataError:
        return broken
    return "names" in content and bool(split_values(content))


def yolo_splits(file: Path) -> dict[str, Source]:
    """The image folders (or text files that list images) of each split; DataError where there is none."""
    content = load(file)
    found: dict[str, Source] = {}
    values = split_values(content)
    for split, value in values.items():
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, str) for part in parts):
            raise DataError(f"{file}: `{split}` must be one folder or one list of images (.txt), or a list of these, "
                            f"not {value!r:.80}")  # fmt: skip
        places = [_place(file, content, part) for part in parts]
        there = tuple(place for place in places if place is not None)
        if there and len(there) < len(places):
            missing = [part for part, place in zip(parts, places, strict=True) if place is None]
            raise DataError(f"{file}: `{split}` names {', '.join(missing[:5])}, which do not exist")
        if there:
            found[split] = there[0] if len(there) == 1 else there
    if not found:
        named = [part for value in values.values() for part in (value if isinstance(value, list) else [value])]
        raise DataError(f"{file}: none of its image folders exists: {', '.join(named) or 'it names none'}; looked "
                        f"below {content.get('path') or file.parent} and {file.parent}")  # fmt: skip
    return found


def _place(file: Path, content: dict[str, Any], value: str) -> Path | None:
    """Below the data set's `path`, below the file, and without the leading ".." that some exports write."""
    value = value.replace("\\", "/")
    root = Path(str(content.get("path") or ".").replace("\\", "/"))
    plain = "/".join(part for part in value.split("/") if part != "..")
    for base, path in ((file.parent / root, value), (root, value), (file.parent, value), (file.parent, plain)):
        found = _similar(base, path)
        if found is not None and (found.is_dir() or found.suffix.lower() == LIST_SUFFIX):
            return found
    return None


def _similar(base: Path, path: str) -> Path | None:
    """`base / path`, perhaps in other capitals."""
    if (base / path).exists():
        return base / path
    found: Path | None = base if base.is_dir() and not path.startswith("/") else None
    for part in path.split("/"):
        if found is None:
            break
        if part not in ("", "."):
            found = found.parent if part == ".." else child(found, (part,))
    return found


def read_yolo(file: Path, images: Source, report: CheckReport) -> tuple[dict[str, Any], Path]:
    """One split in COCO's form, and the folder that its file names are below.

    Args:
        file: the `data.yaml`; classes are its `names`, with their numbers as category ids.
        images: folders of images, or text files with the path of one in each line.
        report: gets the lines that cannot be read; all other checks are those of COCO data.
    """
    content = load(file)
    names = yolo_names(file, content.get("names"))
    listed, root = _listed_together(images)
    finder = ImageFinder(root)
    sizes = of_each(lambda name: _size(finder, name), listed)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    labels = _LabelFiles()
    for image_id, (name, found) in enumerate(zip(listed, sizes, strict=True), start=1):
        record: dict[str, Any] = {"id": image_id, "file_name": name}
        if found is not None:
            path, (height, width) = found
            record |= {"height": height, "width": width}
            for obj in _objects(labels.of(path), (height, width), "kpt_shape" in content, report):
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0, **obj})
        records.append(record)  # a missing or broken file is reported where COCO's are
    categories = [{"id": number, "name": name} for number, name in names.items()]
    return {"images": records, "annotations": annotations, "categories": categories}, root


def label_file(image: Path) -> Path:
    """Where the objects of an image are written: the last folder called "images" in its path becomes "labels"."""
    return _label_folder(image.parent) / f"{image.stem}.txt"


class _LabelFiles:
    """The label files of images, found as they are written or with other capitals and accents."""

    def __init__(self) -> None:
        self.finders: dict[Path, ImageFinder] = {}

    def of(self, image: Path) -> Path | None:
        if image.parent not in self.finders:
            self.finders[image.parent] = ImageFinder(_label_folder(image.parent))
        try:
            return self.finders[image.parent](f"{image.stem}.txt")
        except ImageError:
            return None


def _label_folder(folder: Path) -> Path:
    parts = list(folder.parts)
    places = [index for index, part in enumerate(parts) if comparable(part) == "images"]
    if not places:
        return folder
    above = Path(*parts[: places[-1]])
    return (child_folder(above, ("labels",)) or above / "labels").joinpath(*parts[places[-1] + 1 :])


def _listed_together(images: Source) -> tuple[list[str], Path]:
    """The names of all images, and the folder that they are below."""
    if isinstance(images, Path):
        return _listed(images)
    lists = [_listed(Path(os.path.abspath(source))) for source in images]
    root = Path(os.path.commonpath([folder for _, folder in lists]))
    names = [Path(os.path.relpath(folder, root), name).as_posix() for names, folder in lists for name in names]
    return list(dict.fromkeys(names)), root


def _listed(images: Path) -> tuple[list[str], Path]:
    if images.is_dir():
        return [file.relative_to(images).as_posix() for file in images_below(images)], images
    lines = (line.strip() for line in read_lines(images))
    return [line for line in lines if line], images.parent


def _size(finder: ImageFinder, name: str) -> tuple[Path, Size] | None:
    """The file and the (height, width) of the upright image; None where there is none that can be read."""
    try:
        path = finder(name)
        return path, upright_size(*read_header(path))
    except ImageError:
        return None


def _objects(file: Path | None, size: Size, pose: bool, report: CheckReport) -> Iterator[dict[str, Any]]:
    if file is None:
        return
    try:
        lines = read_lines(file)
    except DataError as error:
        report.add("left out", "label file that cannot be read", str(error))
        return
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        obj = _object(words[: 1 + BOX_NUMBERS] if pose else words, size)
        if obj is None:
            kind = "label line that is neither a class and a box nor a class and an outline"
            report.add("left out", kind, f"{file.name}, line {number}: {line[:60]!r}")
            continue
        yield obj


def _object(words: list[str], size: Size) -> dict[str, Any] | None:
    try:
        category, *numbers = (float(word) for word in words)
    except ValueError:
        return None
    height, width = size
    pixels = [number * (height if index % 2 else width) for index, number in enumerate(numbers)]
    if not category.is_integer():
        return None
    if len(pixels) == BOX_NUMBERS:
        x, y, w, h = pixels
        return {"category_id": int(category), "bbox": [x - w / 2, y - h / 2, w, h], "area": w * h}
    if len(pixels) < 2 * FEWEST_CORNERS or len(pixels) % 2:
        return None
    xs, ys = pixels[::2], pixels[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"category_id": int(category), "bbox": box, "segmentation": [pixels], "area": polygon_area(xs, ys)}
