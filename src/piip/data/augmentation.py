"""The settings of all tasks' random changes as one, told apart by their `kind`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from piip.data.classification.augmentation import ClassAugmentation
from piip.data.detection.augmentation import Augmentation, RandomCrop, RandomTile, from_scratch, multi_scale
from piip.data.segmentation.augmentation import CropAugmentation

__all__ = [
    "AnyAugmentation",
    "Augmentation",
    "ClassAugmentation",
    "CropAugmentation",
    "RandomCrop",
    "RandomTile",
    "from_scratch",
    "multi_scale",
]


def _kind(value: Any) -> str:
    """Values written by hand need no kind for detection, the first task there was."""
    return str(value.get("kind", "detection") if isinstance(value, dict) else getattr(value, "kind", "detection"))


AnyAugmentation = Annotated[
    Annotated[Augmentation, Tag("detection")]
    | Annotated[CropAugmentation, Tag("segmentation")]
    | Annotated[ClassAugmentation, Tag("classification")],
    Discriminator(_kind),
]
