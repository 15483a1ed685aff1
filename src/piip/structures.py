"""What crosses the borders between data, model and evaluation.

Everywhere in the package: a size is (height, width) in pixels or cells, a box is (x1, y1, x2, y2) in
continuous pixel coordinates (a box that covers the whole image is (0, 0, width, height)), a class label
is 0-based and contiguous, lists over branches and feature maps run from fine to coarse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
"""(height, width)"""

HALF = frozenset((torch.bfloat16, torch.float16))
"""dtypes of half precision"""

Prediction = dict[str, Tensor]
"""One image's result, at the size of its (upright) file.

Detection: `boxes` [N, 4] in its pixels, `scores` [N], `labels` [N] int64 and, with a mask head, `masks` [N, H, W] bool,
the best first; for a batch without `paste_masks` `mask_probabilities` [N, 28, 28] inside the boxes in their place.
Segmentation: `labels` [H, W] int64, the best class of each pixel, and `scores` [H, W], its probability.
Classification: `probs` [K], summing to 1."""

IGNORED = -1
"""the label of a pixel that takes part in neither loss nor evaluation; files have values of their own for it"""


class BranchState(NamedTuple):
    """What one branch carries between its groups of blocks."""

    tokens: Tensor
    """[B, H*W, C], row by row"""
    size: Size
    """(H, W) of the token grid; shrinks inside a ConvNeXt"""
    prefix: Tensor | None = None
    """[B, K, C]: class and register tokens, where the branch has any"""
    frame: Tensor | None = None
    """of the branch's `View`; None where it sees the batch's own images"""


class View(NamedTuple):
    """What a branch sees instead of a batch's own images, which are tiles: more of the photos around them."""

    images: Tensor
    """[B, 3, H, W] float32, normalised RGB, as large as the batch's own"""
    frame: Tensor
    """[B, 2, 2] float32, scale and shift: a place (x, y) in 0..1 of the width and height of an own image (padding
    included) is the place `frame[:, 0] * place + frame[:, 1]` of the view's"""


@dataclass(frozen=True)
class Instances:
    """The annotated objects of one image, in pixels of the network's input (resized, not yet padded)."""

    boxes: Tensor
    """[N, 4] float32 (x1, y1, x2, y2)"""
    labels: Tensor
    """[N] int64, 0-based"""
    masks: Tensor | None = None
    """[N, H, W] uint8 of 0 and 1; None where the data has boxes only"""

    def to(self, device: torch.device | str) -> Instances:
        """The same objects on `device`."""
        masks = None if self.masks is None else self.masks.to(device)
        return Instances(self.boxes.to(device), self.labels.to(device), masks)


@dataclass(frozen=True)
class Batch:
    """Images of one step, padded right and below with zeros to one size.

    `Batch(images)` is one of images without padding and without targets: what is not given, or empty, is that.

    Raises ValueError where the numbers of images and sizes differ.
    """

    images: Tensor
    """[B, 3, H, W] float32, normalised RGB"""
    image_sizes: list[Size] = field(default_factory=list)
    """the part of each image that is not padding; the whole image"""
    original_sizes: list[Size] = field(default_factory=list)
    """of the (upright) files, for predictions in their pixels; `image_sizes`"""
    targets: list[Any] = field(default_factory=list)
    """what the task's head takes: `Instances` for detection, label maps [H, W] int64 (of the images without their
    padding, `IGNORED` where nothing is annotated) for segmentation, shares of the
    classes [K], summing to 1, for classification; none for a prediction"""
    indices: list[int] = field(default_factory=list)
    """positions in the data set, to name an image in an error or a result; positions in the batch"""
    padded_sizes: list[Size] = field(default_factory=list)
    """each image with the padding that it would have alone, but not that of larger images in the batch; H and W"""
    views: tuple[View | None, ...] = ()
    """what each branch sees, finest first, None: `images`; none: all see `images`"""
    unreadable: tuple[str, ...] = ()
    """files that could not be read, with other images in their places, and what is wrong with them"""
    missing: Mapping[int, str] = field(default_factory=dict)
    """of an evaluation: images that could not be read, by position in the data set, and what is wrong with them"""
    seeds: tuple[int, ...] = ()
    """what a head draws for each image in training follows from it; none: from torch's global generator"""
    spare: bool = False
    """of several processes: these images are another one's too, where there were not enough, and count there"""
    least_score: float = 0.0
    """detections below it are not wanted: a head may leave them out, and the work on their masks"""
    detections: int | None = None
    """that are wanted of an image, the best; None: as many as the head keeps"""
    most_detections: int | None = None
    """that are wanted of an image where there are more than the head keeps usually: the head looks further in such
    images, as far as it can, and does no more work in others; None: what it keeps is enough"""
    paste_masks: bool = True
    """masks as large as the original images, a byte a pixel; without, what is inside each box, which whoever keeps
    results of large images pastes one by one"""

    def __post_init__(self) -> None:
        count = len(self.images)
        whole = [size_of(self.images)] * count
        sizes = self.image_sizes or whole
        defaults: dict[str, list[Any]] = {
            "image_sizes": whole,
            "original_sizes": sizes,
            "indices": list(range(count)),
            "padded_sizes": whole,
        }
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        numbers = {name: len(getattr(self, name)) for name in ("image_sizes", "original_sizes", "padded_sizes")}
        if set(numbers.values()) != {count}:
            listed = ", ".join(f"{number} {name}" for name, number in numbers.items())
            raise ValueError(f"{count} images, but {listed}: give one for each image")

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        targets = [target.to(device) for target in self.targets]
        views = tuple(view and View(view.images.to(device), view.frame.to(device)) for view in self.views)
        return replace(self, images=self.images.to(device), targets=targets, views=views)

    def padded(self, size: Size) -> Batch:
        """The same with more padding, up to images and views of `size`."""
        (height, width), (before, across) = size, size_of(self.images)
        if (height, width) == (before, across):
            return self
        room = (0, width - across, 0, height - before)
        shares = torch.tensor([[1.0, 1.0], [across / width, before / height]], device=self.images.device)
        made = {
            id(view): View(F.pad(view.images, room), view.frame * shares) for view in self.views if view is not None
        }  # branches that see the same share one
        views = tuple(view and made[id(view)] for view in self.views)
        return replace(self, images=F.pad(self.images, room), views=views)

    def double(self) -> Batch:
        """The same images in float64."""
        views = tuple(view and view._replace(images=view.images.double()) for view in self.views)
        return replace(self, images=self.images.double(), views=views)


def size_of(images: Tensor) -> Size:
    """(height, width) of images or maps [..., H, W], as plain numbers."""
    height, width = images.shape[-2:]
    return height, width
