"""The sizes of the objects in a data set, and how large an image they need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from piip.data.detection.annotations import CocoData
from piip.data.kinds import kinds_of_data
from piip.data.report import DataError
from piip.tasks import open_data
from piip.tasks.choice import WHAT

SMALL = 25
"""percentile of the objects' sizes"""
CELLS_NEEDED = 8
"""of the finest map, along the side of a small object: the side of the smallest anchors of Mask R-CNN (8 x the stride
of the map), that is two patches of the finest branch. Below it no anchor fits, and one token holds object and
surroundings. COCO's small objects come to it at 1120 pixels, the smallest finest size of the paper's detectors"""
CELLS_ENOUGH = 12
"""COCO's small objects come to it at about 1600 pixels; the paper tried little beyond"""


@dataclass(frozen=True)
class Objects:
    """Of one split."""

    count: int
    image_side: float
    """longer side in pixels, median"""
    small: float
    """side in pixels (root of the area) of the object that 25 % are smaller than"""
    part: float
    """the same as a part of its image's longer side"""

    def size_for(self, cells: int, patch: int) -> int:
        """Pixels of the finest branch's image at which a small object has so many cells of the finest map, which has
        four to a patch."""  # fmt: skip
        return math.ceil(cells * patch / 4 / self.part)

    def tile_for(self, finest: int, patch: int) -> int:
        """Pixels of a square of the original images that, seen at `finest`, gives small objects what they need."""
        return int(finest * self.small / (CELLS_NEEDED * patch / 4))


def objects_of(path: str | Path, split: str) -> Objects:
    """Measured in original pixels; ValueError for data without objects, DataError for data of another kind."""
    kind, *others = kinds_of_data(path)
    if "detection" not in (kind, *others):
        raise DataError(
            f"{path}: holds {WHAT[kind]}; only {WHAT['detection']} have sizes to go by, so design without data"
        )
    data = open_data(path, split, "detection")
    assert isinstance(data, CocoData)
    found = [
        (math.sqrt(obj.area), max(image.size))
        for image in data.images
        for obj in image.objects
        if not obj.crowd and obj.area > 0
    ]
    if not found:
        raise ValueError(f"{path}: no object in split {split!r}, so there are no sizes to go by")
    sides, images = np.array(found).T
    return Objects(
        count=len(found),
        image_side=float(np.median([max(image.size) for image in data.images])),
        small=float(np.percentile(sides, SMALL)),
        part=float(np.percentile(sides / images, SMALL)),
    )
