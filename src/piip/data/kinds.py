"""Which task a data set is for: the one whose reader finds something to read there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from piip.config import Task
from piip.data.classification import splits as classes
from piip.data.detection import splits as objects
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
    """The task that the data set at `path` is for; DataError that says what was looked for if it is none's."""
    path = existing(path)
    if path.is_file():
        found = next((task for task, suffixes in FILES.items() if path.suffix.lower() in suffixes), None)
        if found is None:
            raise DataError(
                f"{path}: give a folder, a COCO annotation file (.json), a YOLO data.yaml or a table of classes (.csv)"
            )
        return found
    kind = next((task for task, splits in FINDERS.items() if splits(path)), None)
    if kind is None:
        raise DataError(f"{path}: no data set recognised. Looked for {objects.LOOKED_FOR}, for {masks.LOOKED_FOR} and "
                        f"for {classes.LOOKED_FOR}")  # fmt: skip
    return kind
