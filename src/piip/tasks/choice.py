"""Which task a model and a data set are for, and what to say where the two do not agree."""

from __future__ import annotations

from pathlib import Path

from piip import config
from piip.data.kinds import kind_of_data
from piip.data.report import DataError
from piip.tasks.task import Report, Task

WHAT = {
    "detection": "boxes or outlines of objects (COCO json)",
    "segmentation": "images with label masks",
    "classification": "a folder or a table of classified images",
}
"""what data of each kind is"""
SUGGESTED = {
    "detection": "piip_nano_mask_rcnn",
    "segmentation": "piip_nano_upernet",
    "classification": "piip_nano_classifier",
}
"""a model for each kind of data"""


def of(model: config.Model) -> Task:
    """The task of a model."""
    return named(model.task)


def named(task: config.Task) -> Task:
    """The task of that name."""
    # Imported here: the tasks import the predictor, the predictor asks for the task, and most runs need only one.
    if task == "detection":
        from piip.tasks import detection

        return detection
    if task == "segmentation":
        from piip.tasks import segmentation

        return segmentation
    from piip.tasks import classification

    return classification


def require_pairing(model: config.Model, path: str | Path) -> None:
    """Raise DataError, naming a model that fits, unless the data set at `path` is of the kind that `model` takes."""
    kind = kind_of_data(path)
    if kind != model.task:
        raise DataError(
            f"{path}: holds {WHAT[kind]}, but {model.name} is a {model.task} model and needs {WHAT[model.task]}; "
            f"for this data use a {kind} model, for example {SUGGESTED[kind]} (`piip models` lists all)"
        )


def check_data(path: str | Path) -> dict[str, Report]:
    """A report per split of a data set of any kind, as `piip data check` prints it."""
    return dict(named(kind_of_data(path)).check(path))
