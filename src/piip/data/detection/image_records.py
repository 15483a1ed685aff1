"""Images and objects of a data set, after checking and repairing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piip.structures import Size

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels"""

Segmentation = list[list[float]] | dict[str, Any]
"""An outline in COCO's own forms: polygons [[x, y, x, y, ...], ...], whose union counts, or run lengths
{"size": [H, W], "counts": [...] or compressed text}. Checked: safe to hand to a rasteriser."""


@dataclass(frozen=True, slots=True)
class CocoObject:
    """One annotated object, or one crowd region."""

    box: Box
    label: int
    """0-based"""
    segmentation: Segmentation | None
    crowd: bool
    """a region of many objects that COCO's rules neither reward nor punish; never a training target"""
    annotation_id: int
    area: float
    """in square pixels: what COCO calls small, medium and large"""


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image and its objects."""

    id: int
    """in the annotation file"""
    path: Path
    size: Size
    """of the frame that the annotations are in"""
    upright: bool
    """whether that frame is the image with its EXIF orientation applied, or else the pixels as stored"""
    objects: Sequence[CocoObject] = ()
