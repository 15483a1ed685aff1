"""Finding the annotation files and image folders of a data set, by looking at what is there.

Recognised:

- COCO: `annotations/instances_train2017.json` (or `train.json`, ...) with images in `train2017/`, `train/`,
  `images/train2017/`, `images/train/`, `images/` or the folder itself;
- one folder per split (Roboflow, FiftyOne): `train/_annotations.coco.json` with the images beside it;
- a single .json file, with images beside it or in a folder nearby;
- YOLO: a `data.yaml` that names the image folders of its splits, with `labels/` beside `images/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from piip.data.decode import SUFFIXES, ImageError
from piip.data.detection.images import find_image
from piip.data.detection.yolo import YAML_SUFFIXES, find_yaml, yolo_splits
from piip.data.report import DataError

SplitName = Literal["train", "val", "test"]

NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""what the splits are called in folder and file names"""

ROBOFLOW_FILE = "_annotations.coco.json"

PEEK_BYTES = 1 << 20
"""read from the start of an annotation file to learn how it writes its file names"""


class Split(NamedTuple):
    """One part of a data set."""

    annotation_file: Path
    image_folder: Path


def find_splits(path: str | Path) -> dict[SplitName, Split]:
    """The splits of a data set (a folder, or one annotation file), at least one of them.

    A single annotation file whose name says nothing counts as "train". Raises `DataError` that says what was
    looked for if nothing is recognised, or if several files could be one split.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_file():
        if path.suffix.lower() in YAML_SUFFIXES:
            return _yolo(path)
        if path.suffix.lower() != ".json":
            raise DataError(f"{path}: give a COCO annotation file (.json), a YOLO data.yaml, or a folder with one")
        return {_split_of(path.stem) or "train": Split(path, _image_folder(path, path.parent))}
    for look in (_folder_per_split, _annotation_files, _only_file):
        found = look(path)
        if found:
            return found
    described = find_yaml(path)
    if described is not None:
        return _yolo(described)
    raise DataError(
        f"{path}: no data set recognised. Looked for annotations/instances_train*.json (and val, test) or "
        f"train.json here, for train/{ROBOFLOW_FILE} (and valid/, test/), for a single .json file, and for "
        "YOLO's data.yaml"
    )


def _yolo(file: Path) -> dict[SplitName, Split]:
    places = yolo_splits(file)
    return {split: Split(file, places[split]) for split in NAMES if split in places}


def _split_of(name: str) -> SplitName | None:
    """The split that a file or folder name speaks of: "instances_val2017" is "val"."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((split for split, names in NAMES.items() if any(word in names for word in words)), None)


def _folder_per_split(root: Path) -> dict[SplitName, Split]:
    found: dict[SplitName, Split] = {}
    for split, names in NAMES.items():
        for folder in (root / name for name in names):
            files = [folder / ROBOFLOW_FILE] if (folder / ROBOFLOW_FILE).is_file() else _json_files(folder)
            if len(files) == 1:
                found[split] = Split(files[0], _image_folder(files[0], folder))
                break
    return found


def _annotation_files(root: Path) -> dict[SplitName, Split]:
    for folder in (root / "annotations", root):
        found: dict[SplitName, Split] = {}
        files = _json_files(folder)
        # COCO's own folder also holds captions and keypoints: files called "instances" go first.
        instances = [file for file in files if file.stem.lower().startswith("instances")]
        for file in instances or files:
            split = _split_of(file.stem)
            if split is None:
                continue
            if split in found:
                pair = f"{found[split].annotation_file.name} and {file.name}"
                raise DataError(f"{folder}: {pair} could both be the {split} split; give one annotation file")
            found[split] = Split(file, _image_folder(file, root))
        if found:
            return found
    return {}


def _only_file(root: Path) -> dict[SplitName, Split]:
    files = _json_files(root) or _json_files(root / "annotations")
    return {"train": Split(files[0], _image_folder(files[0], root))} if len(files) == 1 else {}


def _json_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.json") if file.is_file()) if folder.is_dir() else []


def _image_folder(annotation_file: Path, root: Path) -> Path:
    """Where the images of an annotation file are: the first likely folder that has one of them."""
    own = annotation_file.stem.lower().removeprefix("instances_")
    split = _split_of(annotation_file.stem)
    names = list(dict.fromkeys([own, *(NAMES[split] if split else ())]))
    folders = []
    for base in dict.fromkeys((root, annotation_file.parent, annotation_file.parent.parent)):
        folders += [base / name for name in names]
        folders += [base / "images" / name for name in names]
        folders += [base / "images", base / "data", base]
    existing = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    example = _a_file_name(annotation_file)
    if example is not None:
        exact = (folder for folder in existing if _has(folder, example, exact=True))
        loose = (folder for folder in existing if _has(folder, example, exact=False))
        return next(exact, None) or next(loose, None) or existing[-1]
    return next((folder for folder in existing if _has_images(folder)), existing[-1])


def _a_file_name(annotation_file: Path) -> str | None:
    """One image's name as the annotation file writes it, or None if its beginning does not tell."""
    try:
        with annotation_file.open("rb") as file:
            beginning = file.read(PEEK_BYTES).decode("utf-8", "ignore")
    except OSError:
        return None
    match = re.search(r'"file_name"\s*:\s*"([^"\\]+)"', beginning)
    return match.group(1) if match else None


def _has(folder: Path, name: str, exact: bool) -> bool:
    try:
        found = find_image(folder, name)
    except ImageError:
        return False
    return not exact or found == folder / name


def _has_images(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())
