"""Typed, frozen description of a whole model: backbone, head, classes, preprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from piip.config.backbone import GROUP_NORM_GROUPS, Backbone
from piip.config.branch import Frozen, View
from piip.config.heads import DINO, TASKS, Classifier, Head, MaskRCNN, Task, UperNet
from piip.config.limits import Pixels

MOST_CLASSES = 200_000

Score = Annotated[float, Field(ge=0, le=1)]
Channel = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Channel, Channel, Channel]
ImageSize = int | Literal["native"]
"""of a prediction: the limit of the longer side in pixels, or every image as it is"""


class Preprocess(Frozen):
    """How an image becomes the network's input: keep-ratio resize, normalise, pad right and below."""

    long_side: Pixels
    """limit of the longer side after the resize, in pixels"""
    long_side_in_tests: bool = True
    """whether that limit holds in evaluation and prediction; without, the shorter side becomes `short_side` always, as
    in the released segmentors, which look through sliding windows"""
    short_side: Pixels
    """limit of the shorter side after the resize, in pixels"""
    resize_in_tests: bool = True
    """whether evaluation and prediction resize images at all; without, each is seen at its own size"""
    pad_multiple: Pixels = 32
    """both sides are padded with zeros (after normalising) to a multiple of this"""
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    """of RGB values in 0..255"""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (127.5, 127.5, 127.5)

    @property
    def test_long_side(self) -> float:
        """The limit of the longer side in evaluation and prediction: infinite where there is none."""
        return self.long_side if self.long_side_in_tests else math.inf

    def at(self, image_size: ImageSize) -> Preprocess:
        """The same with another limit of the longer side, that of the shorter one in proportion; or without resizing.

        Raises:
            ValueError: less than one multiple of the padding.
        """
        if image_size == "native":
            return self.model_copy(update={"resize_in_tests": False})
        if image_size < self.pad_multiple:
            raise ValueError(f"image size {image_size}: use at least {self.pad_multiple} pixels")
        short = max(1, round(image_size / self.long_side * self.short_side))
        sides = {"long_side": int(image_size), "short_side": short, "resize_in_tests": True}
        return Preprocess.model_validate(self.model_dump() | sides)

    @model_validator(mode="after")
    def _check(self) -> Preprocess:
        if self.short_side > self.long_side:
            raise ValueError(f"short_side {self.short_side} is larger than long_side {self.long_side}")
        return self


class Model(Frozen):
    """A backbone, a head, the classes it tells apart and the preprocessing its weights expect."""

    name: str
    """zoo name, or a name of your own"""
    backbone: Backbone
    head: Head = MaskRCNN()
    classes: tuple[str, ...] = Field(min_length=1, max_length=MOST_CLASSES)
    """names, in label order (label 0 is the first)"""
    category_ids: tuple[int, ...] | None = None
    """the training data's own ids of the classes, for COCO results; None: labels + 1"""
    preprocess: Preprocess
    colours: tuple[Colour | None, ...] | None = None
    """a segmentor's: of each class in pictures, red, green, blue, where the training data names them; None: our own"""
    thresholds: tuple[Score | None, ...] | None = None
    """a detector's: the score of each class from which an object counts where `conf="auto"` is asked for, that of the
    best F1 on the data that the weights were chosen on; None: not measured, or a class of which nothing was found"""

    @property
    def task(self) -> Task:
        """What the head does."""
        return TASKS[self.head.kind]

    def predicting_at(self, image_size: ImageSize) -> Model:
        """The same model for images of another size in evaluation and prediction; see `Preprocess.at`.

        Raises:
            ValueError: as there; or a classifier, which sees squares, is to see images at their own size.
        """
        if image_size == "native" and isinstance(self.head, Classifier):
            raise ValueError("image size 'native': a classifier sees squares of one size; give their side in pixels")
        return self.model_copy(update={"preprocess": self.preprocess.at(image_size)})

    def with_image_size(self, image_size: int) -> Model:
        """The same model to be trained on images with another longer side; sliding windows keep their proportion."""
        preprocess = self.preprocess.at(image_size)
        head = self.head
        if isinstance(head, UperNet):
            head = head.scaled(image_size / self.preprocess.long_side)
        return self.model_copy(update={"preprocess": preprocess, "head": head})

    def with_sizes(self, sizes: Sequence[int]) -> Model:
        """The same branches on another pyramid; the input's sides follow the finest. See `Backbone.with_sizes`."""
        backbone = self.backbone.with_sizes(sizes)
        long_side = round(self.preprocess.long_side * sizes[0] / self.backbone.branches[0].size)
        return self.model_copy(update={"backbone": backbone}).with_image_size(long_side)

    def with_views(self, views: Sequence[View]) -> Model:
        """The same branches with other views of photos in tiles. See `Backbone.with_views`."""
        return self.model_copy(update={"backbone": self.backbone.with_views(views)})

    def with_thresholds(self, scores: Sequence[float | None] | None) -> Model:
        """The same model with a threshold for each class; ValueError for another number of them, or no scores."""
        return Model(**dict(self) | {"thresholds": scores})

    @model_validator(mode="after")
    def _check(self) -> Model:
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.classes)} classes")
        if self.colours is not None and len(self.colours) != len(self.classes):
            raise ValueError(f"{len(self.colours)} colours for {len(self.classes)} classes")
        if self.category_ids is not None and len(self.category_ids) != len(self.classes):
            raise ValueError(f"{len(self.category_ids)} category_ids for {len(self.classes)} classes")
        if self.backbone.maps is None and not isinstance(self.head, Classifier):
            raise ValueError(f"a head of kind {self.head.kind!r} reads feature maps; the backbone's `maps` are None")
        maps = len(self.backbone.map_widths)
        if isinstance(self.head, DINO) and self.head.levels < maps:
            raise ValueError(f"a DINO head of {self.head.levels} levels; the backbone has {maps} maps, which all are "
                             "read: give as many levels or more")  # fmt: skip
        if isinstance(self.head, UperNet):
            self._check_upernet(self.head)
        if isinstance(self.head, Classifier):
            self._check_classifier(self.head)
        return self

    def _check_classifier(self, head: Classifier) -> None:
        if self.backbone.maps is not None:
            raise ValueError("a classifier reads the branches, not feature maps: give the backbone `maps=None`")
        if self.preprocess.long_side != self.preprocess.short_side:
            raise ValueError(f"a classifier sees square images; long_side {self.preprocess.long_side} and short_side "
                             f"{self.preprocess.short_side} must be equal")  # fmt: skip
        narrow = [branch.width for branch in self.backbone.branches if branch.width % GROUP_NORM_GROUPS]
        if not head.separate_head and narrow:
            raise ValueError(f"widths {narrow} must be multiples of {GROUP_NORM_GROUPS} (GroupNorm) to be merged")

    def _check_upernet(self, head: UperNet) -> None:
        maps = len(self.backbone.map_widths)
        if maps < 2:
            raise ValueError(f"UperNet needs two feature maps or more; the backbone has {maps}")
        if head.auxiliary_channels is not None and head.auxiliary_map >= maps:
            raise ValueError(f"auxiliary_map {head.auxiliary_map}: the backbone has maps 0 to {maps - 1}")
        if head.class_weights is not None and len(head.class_weights) != len(self.classes):
            raise ValueError(f"{len(head.class_weights)} class_weights for {len(self.classes)} classes")
