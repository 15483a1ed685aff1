"""Finding the annotation files and image folders of a data set, by looking at what is there.

Recognised, whatever the capitals:

- COCO: `annotations/instances_train2017.json` (or `train.json`, ...) with images in `train2017/`, `train/`,
  `images/train2017/`, `images/train/`, `images/` or the folder itself;
- one folder per split (Roboflow, FiftyOne): `train/_annotations.coco.json` with the images beside it;
- a single .json file, with images beside it or in a folder nearby;
- YOLO: a `data.yaml` that names the image folders of its splits, with `labels/` beside `images/`;
- the formats of other tools, see `formats`.

Which .json files are COCO's is told by their keys, see `glimpse`. Where a folder fits several, the first counts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from piip.data.detection.glimpse import image_names, is_coco
from piip.data.detection.yolo import YAML_SUFFIXES, find_yaml, yolo_splits
from piip.data.find_image import ImageFinder
from piip.data.formats import box_tables, cvat, dota, hugging_face, label_studio, labelme, via, voc
from piip.data.formats.records import Split
from piip.data.image_files import ImageError
from piip.data.layout import (
    IMAGE_FOLDERS,
    NAMES,
    SplitName,
    child,
    child_folder,
    holds_images,
    is_hidden,
    split_folders,
    split_of,
)
from piip.data.opening import existing
from piip.data.report import DataError

ROBOFLOW_FILE = "_annotations.coco.json"
FILES = (".json", *YAML_SUFFIXES, ".xml")
"""endings of files that are a data set by themselves"""
LOOKED_FOR = (
    f"COCO annotations (annotations/instances_train*.json, train.json, train/{ROBOFLOW_FILE}, or a single .json file "
    "with images, annotations and categories), YOLO's data.yaml (with train, val and names), files of Pascal VOC, "
    "CVAT, LabelMe, Label Studio, VIA, DOTA, Open Images or Hugging Face"
)


def find_splits(path: str | Path) -> dict[SplitName, Split]:
    """The splits of a data set (a folder, or one annotation file), at least one of them.

    A single annotation file whose name says nothing counts as "train". Raises `DataError` that says what was
    looked for if nothing is recognised, or if several files could be one split.
    """
    path = existing(path)
    found = splits_at(path)
    if not found and path.is_file() and path.suffix.lower() not in FILES:
        raise DataError(f"{path}: give a COCO annotation file (.json), a YOLO data.yaml, or a folder with one")
    if not found:
        raise DataError(f"{path}: no data set recognised. Looked for {LOOKED_FOR}")
    return found


def splits_at(path: Path) -> dict[SplitName, Split]:
    """`find_splits` that finds nothing where nothing is recognised."""
    return next(filter(None, (find(path) for find in FINDERS.values())), {})


def also_there(path: Path) -> list[str]:
    """Formats that the data at `path` is in, too, beside the one that `splits_at` takes."""
    return [name for name, find in FINDERS.items() if find(path)][1:]


def _coco(path: Path) -> dict[SplitName, Split]:
    if path.is_file():
        if path.suffix.lower() != ".json" or label_studio.find(path) or via.find(path):
            return {}
        return {split_of(path.stem) or "train": Split(path, _image_folder(path, path.parent))}
    found = (look(path) for look in (_folder_per_split, _annotation_files, _only_file))
    return next(filter(None, found), {})


def _yolo(path: Path) -> dict[SplitName, Split]:
    if path.is_file():
        return _described(path) if path.suffix.lower() in YAML_SUFFIXES else {}
    described = find_yaml(path)
    return {} if described is None else _described(described)


def _described(file: Path) -> dict[SplitName, Split]:
    places = yolo_splits(file)
    return {split: Split(file, places[split]) for split in NAMES if split in places}


def _folder_per_split(root: Path) -> dict[SplitName, Split]:
    found: dict[SplitName, Split] = {}
    for split in NAMES:
        for folder in split_folders(root, split):
            roboflow = child(folder, (ROBOFLOW_FILE,))
            files = [roboflow] if roboflow is not None else _coco_files(folder)
            if len(files) == 1:
                found[split] = Split(files[0], _image_folder(files[0], folder))
                break
    return found


def _annotation_files(root: Path) -> dict[SplitName, Split]:
    for folder in (child_folder(root, ("annotations",)), root):
        found: dict[SplitName, Split] = {}
        files = [] if folder is None else _coco_files(folder)
        # COCO's own folder also holds captions and keypoints: files called "instances" go first.
        instances = [file for file in files if file.stem.lower().startswith("instances")]
        for file in instances or files:
            split = split_of(file.stem)
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
    inside = child_folder(root, ("annotations",))
    files = _coco_files(root) or ([] if inside is None else _coco_files(inside))
    return {"train": Split(files[0], _image_folder(files[0], root))} if len(files) == 1 else {}


def _coco_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() == ".json" and not is_hidden(file.name))
    # LabelMe's are told first: there are thousands of them, with a picture in each
    return sorted(file for file in files if not labelme.KIND.fits(file) and is_coco(file))


def _image_folder(annotation_file: Path, root: Path) -> Path:
    """Where the images of an annotation file are: the likely folder that has most of the first ones."""
    own = annotation_file.stem.lower().removeprefix("instances_")
    split = split_of(annotation_file.stem)
    folders: list[Path | None] = []
    for base in dict.fromkeys((root, annotation_file.parent, annotation_file.parent.parent)):
        images = [child_folder(base, (name,)) for name in IMAGE_FOLDERS]
        for place in (base, *images):
            if place is not None:
                folders += [child_folder(place, (own,)), *(split_folders(place, split) if split else ())]
        folders += [*images, child_folder(base, ("data",)), base]
    there = list(dict.fromkeys(folder for folder in folders if folder is not None and folder.is_dir()))
    names = image_names(annotation_file)
    if not names:
        return next((folder for folder in there if holds_images(folder, deep=False)), there[-1])
    finders = {folder: ImageFinder(folder) for folder in there}
    for exact in (True, False):
        count = {folder: sum(_has(finder, folder, name, exact) for name in names) for folder, finder in finders.items()}
        if any(count.values()):
            return max(there, key=count.__getitem__)
    return there[-1]


def _has(finder: ImageFinder, folder: Path, name: str, exact: bool) -> bool:
    try:
        found = finder(name)
    except ImageError:
        return False
    return not exact or found == folder / name


FINDERS: dict[str, Callable[[Path], dict[SplitName, Split]]] = {
    "COCO": _coco,
    "YOLO": _yolo,
    cvat.NAME: cvat.find,
    voc.NAME: voc.find,
    labelme.NAME: labelme.find,
    label_studio.NAME: label_studio.find,
    via.NAME: via.find,
    hugging_face.NAME: hugging_face.find,
    box_tables.TABLE: box_tables.find,
    dota.NAME: dota.find,
}
"""in this order"""
