"""The steps that images, boxes and masks go through alike, and what of the photo is shown after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torchvision.transforms.v2 import functional

from piip.data.quarter_turns import turned
from piip.data.surround import Shown
from piip.data.transforms import resized
from piip.structures import Size


class Step(Protocol):
    """A change of the geometry."""

    def __call__(self, tensor: Tensor) -> Tensor:
        """An image, boxes or masks, as tv_tensors, after it."""

    def shows(self, shown: Shown) -> Shown:
        """What an image shows after it."""


@dataclass(frozen=True)
class Resize:
    """To another size."""

    size: Size

    def __call__(self, tensor: Tensor) -> Tensor:
        """See `data.transforms.resized`."""
        return resized(tensor, self.size)

    def shows(self, shown: Shown) -> Shown:
        """The same."""
        return shown.resized(self.size)


@dataclass(frozen=True)
class Crop:
    """A part, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def __call__(self, tensor: Tensor) -> Tensor:
        """The part."""
        out: Tensor = functional.crop(tensor, self.top, self.left, self.height, self.width)
        return out

    def shows(self, shown: Shown) -> Shown:
        """The part."""
        return shown.cropped(self.top, self.left, self.height, self.width)


@dataclass(frozen=True)
class Flip:
    """Left to right."""

    def __call__(self, tensor: Tensor) -> Tensor:
        """Mirrored."""
        out: Tensor = functional.horizontal_flip(tensor)
        return out

    def shows(self, shown: Shown) -> Shown:
        """The same, mirrored."""
        return shown.flipped()


@dataclass(frozen=True)
class Turn:
    """Anticlockwise by so many quarters."""

    quarters: int

    def __call__(self, tensor: Tensor) -> Tensor:
        """Turned."""
        return turned(tensor, self.quarters)

    def shows(self, shown: Shown) -> Shown:
        """The same, turned."""
        return shown.turned(self.quarters)


def shown_after(steps: Sequence[Step], shown: Shown) -> Shown:
    """What an image shows after all of them."""
    for step in steps:
        shown = step.shows(shown)
    return shown
