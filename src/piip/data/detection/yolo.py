"""YOLO's data sets: a `data.yaml`, a text file of normalised boxes or outlines beside every image.

They are read into COCO's form, so that everything after it, the checks and their report included, is the same. The
layout is that of Ultralytics: `images/.../name.jpg` has its objects in `labels/.../name.txt` (or beside it, where no
folder is called "images"), one line each, `class x y width height` (the centre first) or `class x y x y x y ...`,
all in parts of the upright image's sides. An image without a text file, or with an empty one, has no objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from piip.data.decode import SUFFIXES, ImageError, read_header
from piip.data.detection.images import HEADER_THREADS, TURNING, find_image
from piip.data.report import CheckReport, DataError
from piip.structures import Size

YAML_SUFFIXES = (".yaml", ".yml")
USUAL_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
SPLIT_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
BOX_NUMBERS = 4
FEWEST_CORNERS = 3


def find_yaml(folder: Path) -> Path | None:
    """The file that describes a YOLO data set in `folder`: by its usual name, or the only .yaml with `names`."""
    for name in USUAL_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = [file for file in sorted(folder.glob("*.y*ml")) if file.suffix in YAML_SUFFIXES and _describes(file)]
    return found[0] if len(found) == 1 else None


def yolo_splits(file: Path) -> dict[str, Path]:
    """The image folder (or the text file that lists images) of each split; DataError where there is none."""
    content = _load(file)
    found = {}
    for split, keys in SPLIT_KEYS.items():
        value = next((content[key] for key in keys if content.get(key)), None)
        if value is None:
            continue
        if not isinstance(value, str):
            raise DataError(f"{file}: `{split}` must be one folder or one list of images (.txt), not {value!r:.80}")
        place = next((path for path in _candidates(file, content, value) if path.exists()), None)
        if place is not None:
            found[split] = place
    if not found:
        named = [str(content[key]) for keys in SPLIT_KEYS.values() for key in keys if content.get(key)]
        raise DataError(f"{file}: none of its image folders exists: {', '.join(named) or 'it names none'}; looked "
                        f"below {content.get('path') or file.parent} and {file.parent}")  # fmt: skip
    return found


def read_yolo(file: Path, images: Path, report: CheckReport) -> tuple[dict[str, Any], Path]:
    """One split in COCO's form, and the folder that its file names are below.

    Args:
        file: the `data.yaml`; classes are its `names`, with their numbers as category ids.
        images: a folder of images, or a text file with the path of one in each line.
        report: gets the lines that cannot be read; all other checks are those of COCO data.
    """
    names = _names(file, _load(file).get("names"))
    listed, root = _listed(images)
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        sizes = list(pool.map(lambda name: _size(root, name), listed))
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, found) in enumerate(zip(listed, sizes, strict=True), start=1):
        record: dict[str, Any] = {"id": image_id, "file_name": name}
        if found is not None:
            path, (height, width) = found
            record |= {"height": height, "width": width}
            for obj in _objects(label_file(path), (height, width), report):
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, "iscrowd": 0, **obj})
        records.append(record)  # a missing or broken file is reported where COCO's are
    categories = [{"id": number, "name": name} for number, name in names.items()]
    return {"images": records, "annotations": annotations, "categories": categories}, root


def label_file(image: Path) -> Path:
    """Where the objects of an image are written: the last folder called "images" in its path becomes "labels"."""
    parts = list(image.parent.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts, f"{image.stem}.txt")


def _load(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: not readable as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: not a YOLO data set, which has `train`, `val` and `names`")
    return content


def _describes(file: Path) -> bool:
    try:
        return {"names", "train"} <= _load(file).keys()
    except DataError:
        return False


def _candidates(file: Path, content: dict[str, Any], value: str) -> Iterator[Path]:
    """Below the data set's `path`, below the file, and without the leading ".." that some exports write."""
    root = Path(str(content.get("path") or "."))
    for base in (file.parent / root, root, file.parent):
        yield base / value
    yield file.parent.joinpath(*(part for part in Path(value).parts if part != ".."))


def _names(file: Path, names: Any) -> dict[int, str]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError(f"{file}: `names` must list the classes, or give each number its name")
    wrong = [key for key in names if not isinstance(key, int) or key < 0]
    if wrong:
        raise DataError(f"{file}: `names` has {wrong[0]!r} for a number; they are 0, 1, 2, ...")
    return {number: str(names[number]) for number in sorted(names)}


def _listed(images: Path) -> tuple[list[str], Path]:
    if images.is_dir():
        files = sorted(file for file in images.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        return [file.relative_to(images).as_posix() for file in files], images
    try:
        lines = images.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{images}: not readable as a list of images ({error})") from error
    return [line.strip() for line in lines if line.strip()], images.parent


def _size(root: Path, name: str) -> tuple[Path, Size] | None:
    """The file and the (height, width) of the upright image; None where there is none that can be read."""
    try:
        path = find_image(root, name)
        (height, width), orientation = read_header(path)
    except ImageError:
        return None
    return path, ((width, height) if orientation in TURNING else (height, width))


def _objects(file: Path, size: Size, report: CheckReport) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        report.add("left out", "label file that cannot be read", f"{file}: {error}")
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        obj = _object(line.split(), size)
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
    return {"category_id": int(category), "bbox": box, "segmentation": [pixels], "area": _area(xs, ys)}


def _area(xs: list[float], ys: list[float]) -> float:
    """Of a polygon."""
    following = zip(xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
    return abs(sum(x * y2 - x2 * y for x, y, (x2, y2) in zip(xs, ys, following, strict=True))) / 2
