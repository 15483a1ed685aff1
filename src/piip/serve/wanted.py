"""What goes between the processes of a server: an image and how its answer is wanted, and the answer.

Nothing here needs torch, which only the model's process has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Format = Literal["json", "coco", "mask", "picture"]
FORMATS: dict[str, tuple[Format, ...]] = {
    "detection": ("json", "coco", "picture"),
    "segmentation": ("json", "mask", "picture"),
    "classification": ("json", "picture"),
}
"""what there is of each task"""


@dataclass(frozen=True)
class Wanted:
    """How a request wants its answer."""

    format: Format = "json"
    conf: float = 0.25
    """lowest score of an object, 0 to 1"""
    least_scores: tuple[float, ...] | None = None
    """of each class, where they differ; `conf` is then the lowest of them"""
    classes: tuple[int, ...] | None = None
    """labels of the objects that count; None: all"""
    with_mask: bool = False
    """segmentation: put the label map into the JSON as `mask_png`, see `_label_picture`"""


class Answer(NamedTuple):
    """The body of an answer and its kind."""

    body: bytes
    media_type: str


class Image(NamedTuple):
    """One request's image on its way to the model."""

    pixels: np.ndarray
    """[H, W, 3] uint8 RGB"""
    wanted: Wanted


class Refused(NamedTuple):
    """Why one image got no answer."""

    reason: str
