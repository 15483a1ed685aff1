"""Which task a data set is for: the one whose reader finds something to read there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from piip.config import Task
from piip.data.classification import splits as classes
from piip.data.detection import splits as objects
from piip.data.layout import child_folder, is_hidden
from piip.data.opening import existing
from piip.data.report import DataError
from piip.data.segmentation import folders as masks

FINDERS: dict[Task, Callable[[Path], Mapping[objects.SplitName, object]]] = {
    "segmentation": masks.find_mask_splits,
    "detection": objects.splits_at,
    "classification": classes.class_splits_at,
}
"""in this order: images with masks look like class folders, and an annotation file may lie beside either"""
FILES: dict[Task, tuple[str, ...]] = {"detection": objects.FILES, "classification": classes.FILES}
"""endings of files that are a data set by themselves"""


def kind_of_data(path: str | Path) -> Task:
    """The task that the data set at `path` is for; DataError that says what was looked for if it is none's.

    The first, where a folder fits several (`kinds_of_data`).
    """
    return kinds_of_data(path)[0]


def as_task(name: str) -> Task:
    """The task called so; ValueError for anything else."""
    found = next((task for task in FINDERS if task == name), None)
    if found is None:
        raise ValueError(f"{name!r} is no task; use {', '.join(FINDERS)}")
    return found


def also_fits(path: str | Path, task: Task | None = None) -> list[str]:
    """What else the data set at `path` could be taken for, besides that of `task` (default: `kind_of_data`)."""
    kinds = kinds_of_data(path)
    used = task or kinds[0]
    notes = [f"the folder also holds data for {kind} (`piip data check --task {kind}` looks at it)"
             for kind in kinds if kind != used]  # fmt: skip
    if used == "detection":
        formats = objects.also_there(Path(path))
        notes += [f"the folder also holds annotations in the format of {name}, which are not used" for name in formats]
    return notes


def kinds_of_data(path: str | Path) -> list[Task]:
    """All tasks that the data set at `path` is for, at least one; DataError as for `kind_of_data`."""
    path = existing(path)
    if path.is_file() and path.suffix.lower() in classes.FILES and objects.splits_at(path):
        return ["detection"]  # a table of boxes
    if path.is_file():
        found = next((task for task, suffixes in FILES.items() if path.suffix.lower() in suffixes), None)
        if found is None:
            raise DataError(f"{path}: give a folder, an annotation file (COCO's .json, CVAT's .xml), a YOLO data.yaml "
                            "or a table of classes (.csv)")  # fmt: skip
        return [found]
    kinds = [task for task, splits in FINDERS.items() if splits(path)]
    if "detection" in kinds and "segmentation" in kinds and _undescribed(path):
        kinds.sort(key="segmentation".__eq__)  # VOC's own folder: nothing says what its masks mean
    if not kinds and (packed := parquet_files(path)):
        raise DataError(f"{path}: holds Hugging Face's .parquet files ({packed[0].name}, ...), with images inside, "
                        "which are not trained on as they are; `piip data convert` writes them as files")  # fmt: skip
    if not kinds:
        raise DataError(f"{path}: no data set recognised. Looked for {objects.LOOKED_FOR}, for {masks.LOOKED_FOR} and "
                        f"for {classes.LOOKED_FOR}")  # fmt: skip
    return kinds


def _undescribed(path: Path) -> bool:
    """Whether nothing says what the values of the masks mean; a description that is wrong says so itself."""
    try:
        return masks.read_description(path) is None and masks.ade20k_description(path) is None
    except DataError:
        return False


def parquet_files(path: Path) -> list[Path]:
    """Tables with images inside, in the folder or in `data`, as the Hub has them, or the one that is meant."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    folders = (path, child_folder(path, ("data",)))
    tables = (
        sorted(file for file in folder.glob("*.parquet") if not is_hidden(file.name)) for folder in folders if folder
    )
    return next((found for found in tables if found), [])
