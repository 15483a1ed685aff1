"""Names of the classes of an official checkpoint: its own, or where it holds none those of the data it must be of."""

from __future__ import annotations

from piip import config
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.data.names.coco import COCO_CLASSES
from piip.data.names.imagenet import imagenet_classes


def with_class_names(model: config.Model, found: tuple[str, ...] | None) -> tuple[config.Model, str | None]:
    """The model with the right names, and what a user should know of them.

    Args:
        model: as its config or the zoo describes it, with names that were chosen by the number of classes.
        found: the checkpoint's own names, in label order; None where it holds none.
    """
    count = len(model.classes)
    if found is not None and len(found) == count:
        ids = tuple(COCO_CLASSES) if found == tuple(COCO_CLASSES.values()) else None
        return model.model_copy(update={"classes": found, "category_ids": ids}), None
    if found is not None:
        numbered = tuple(f"class {label}" for label in range(count))
        note = f"the file names {len(found)} classes, but its head has {count}: they are numbered"
        return model.model_copy(update={"classes": numbered, "category_ids": None}), note
    public = _public_name(model.classes)
    if public is not None:
        return model, f"the file names no classes; there are {count}, so they are taken to be {public}'s"
    return model, f"the file names no classes; they are called {model.classes[0]!r} and so on"


def _public_name(classes: tuple[str, ...]) -> str | None:
    known = {"COCO": tuple(COCO_CLASSES.values()), "ADE20K": ADE20K_CLASSES}
    if len(classes) == 1000:  # their file is only read when needed
        known["ImageNet"] = tuple(imagenet_classes().values())
    return next((name for name, names in known.items() if names == classes), None)
