"""COCO's layout: `annotations/instances_train.json` and the images in `train/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from piip.data.conversion.together import copy_all, names_below
from piip.data.detection.annotations import CocoData
from piip.files import write_json


def write_coco(splits: Mapping[str, CocoData], out: Path) -> None:
    """Everything that `CocoData` holds is kept, ids of images and categories too."""
    for split, data in splits.items():
        names = names_below([image.path for image in data.images])
        content = data.to_coco()
        for record, name in zip(content["images"], names, strict=True):
            record["file_name"] = name
        copy_all((image.path, out / split / name) for image, name in zip(data.images, names, strict=True))
        write_json(out / "annotations" / f"instances_{split}.json", content)
