"""Which task a model and a data set are for, and what to say where the two do not agree."""

from __future__ import annotations

from pathlib import Path

from piip import config
from piip.data.kinds import kind_of_data, kinds_of_data
from piip.data.report import DataError
from piip.tasks import classification, detection, segmentation
from piip.tasks.findings import FINDINGS_FILE
from piip.tasks.task import Data, Report, Task

TASKS: dict[config.Task, Task] = {
    "detection": detection,
    "segmentation": segmentation,
    "classification": classification,
}
WHAT = {
    "detection": "boxes or outlines of objects (COCO json)",
    "segmentation": "images with label masks",
    "classification": "a folder or a table of classified images",
}
"""what data of each kind is"""
EVALUATION_FILES = (
    "metrics.json",
    "predictions.json",
    "thresholds.json",
    "errors.json",
    "confusion_matrix.png",
    "box_precision_recall.png",
    "mask_precision_recall.png",
    "masks",
    FINDINGS_FILE,
)
"""what an evaluation writes"""
SUGGESTED = {
    "detection": "piip_nano_mask_rcnn",
    "segmentation": "piip_nano_upernet",
    "classification": "piip_nano_classifier",
}
"""a model for each kind of data"""


def of(described: config.Model) -> Task:
    """The task of a model."""
    return named(described.task)


def named(task: config.Task) -> Task:
    """The task of that name."""
    return TASKS[task]


def require_pairing(described: config.Model, path: str | Path) -> None:
    """Raise DataError, naming a model that fits, unless the data at `path` is of a kind that `described` takes."""
    kinds = kinds_of_data(path)
    kind = kinds[0]
    if described.task not in kinds:
        raise DataError(
            f"{path}: holds {WHAT[kind]}, but {described.name} is a {described.task} model and needs "
            f"{WHAT[described.task]}; "
            f"for this data use a {kind} model, for example {SUGGESTED[kind]} (`piip models` lists all)"
        )


def check_data(path: str | Path, task: config.Task | None = None) -> dict[str, Report]:
    """A report per split of a data set of any kind, as `piip data check` prints it.

    `task`: which data to look at in a folder that fits several.
    """
    return dict(named(task or kind_of_data(path)).check(path))


def open_data(path: str | Path, split: str, task: config.Task | None = None) -> Data:
    """The checked data of one split ("train", "val" or "test") of a data set of any kind, as training takes it.

    `task`: which data to take from a folder that fits several.

    What comes depends on the kind: `data.detection.annotations.CocoData` for objects,
    `data.segmentation.masks.MaskData` for label masks, `data.classification.images.ClassData` for classified images.
    All have `images`, `classes` and `report`, which says what was left out or repaired.

    Raises:
        DataError: no data set, no such split (it names those there are), or nothing in it that can be used.
    """
    return named(task or kind_of_data(path)).open_split(path, split)
