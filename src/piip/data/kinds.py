"""Which task a data set is for, by looking at what is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from piip.config import Task
from piip.data.decode import SUFFIXES
from piip.data.detection.splits import NAMES
from piip.data.detection.yolo import find_yaml
from piip.data.report import DataError
from piip.data.segmentation.folders import find_mask_splits

SPLIT_FOLDERS = tuple(name for names in NAMES.values() for name in names)


def kind_of_data(path: str | Path) -> Task:
    """The task that the data set at `path` is for; DataError that says what was looked for if it is none's."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_file():
        kinds: dict[str, Task] = {
            ".json": "detection",
            ".yaml": "detection",
            ".yml": "detection",
            ".csv": "classification",
        }
        if path.suffix.lower() not in kinds:
            raise DataError(
                f"{path}: give a folder, a COCO annotation file (.json), a YOLO data.yaml or a table of classes (.csv)"
            )
        return kinds[path.suffix.lower()]
    if find_mask_splits(path):
        return "segmentation"
    if _has_annotations(path) or find_yaml(path) is not None:
        return "detection"
    if _has_class_folders(path):
        return "classification"
    raise DataError(
        f"{path}: no data set recognised. Looked for COCO annotations (annotations/instances_train*.json, train.json, "
        "train/_annotations.coco.json) or YOLO's data.yaml, for images with label masks (images/train and masks/train, "
        "ADE20K's images/training and annotations/training, train/images and train/masks) and for class folders "
        "(train/CLASS/*.jpg) or train.csv"
    )


def _has_annotations(root: Path) -> bool:
    folders = [root, root / "annotations", *(root / name for name in SPLIT_FOLDERS)]
    return any(file.name != "classes.json" for folder in folders for file in folder.glob("*.json"))


def _has_class_folders(root: Path) -> bool:
    if any((root / f"{name}.csv").is_file() for name in SPLIT_FOLDERS):
        return True
    splits = [root / name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    classes = (folder for split in splits or [root] for folder in _folders(split))
    return any(_holds_images(folder) for folder in classes)


def _folders(path: Path) -> Iterator[Path]:
    return (folder for folder in sorted(path.iterdir()) if folder.is_dir())


def _holds_images(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())
