"""Images with label masks: `images/train/`, `masks/train/` and `classes.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from piip.data.conversion.together import copy_all, flat_names
from piip.data.segmentation.folders import Description
from piip.data.segmentation.masks import MaskData
from piip.files import write_json


def write_labelled(splits: Mapping[str, MaskData], out: Path) -> None:
    """Masks are named after their images; their values stay as they are."""
    for split, data in splits.items():
        for image, name in zip(data.images, flat_names([image.path for image in data.images]), strict=True):
            mask = f"{Path(name).stem}{image.mask.suffix}"
            copy_all([(image.path, out / "images" / split / name), (image.mask, out / "masks" / split / mask)])
    write_classes(next(iter(splits.values())).description, out)


def write_classes(description: Description, out: Path) -> None:
    """`classes.json`."""
    names = {str(value): name for value, name in zip(description.values, description.classes, strict=True)}
    content: dict[str, object] = {"classes": names, "ignore_index": sorted(description.ignored)}
    if description.colours is not None:
        named = zip(description.classes, description.colours, strict=True)
        content["colors"] = {name: colour for name, colour in named if colour is not None}
    write_json(out / "classes.json", content, indent=2)
