"""From an image to a network's input, as an evaluation does it too, and what pixels of a photo that takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from piip import config
from piip.config import Preprocess
from piip.data.classification.transforms import ClassTestTransform
from piip.data.transforms import network_input, size_in_tests
from piip.structures import Size


class InputTransform(Protocol):
    """Prepares images for a network."""

    def needed(self, size: Size) -> Size:
        """(height, width) that the network's input is made of, of a photo of `size`."""

    def __call__(self, image: Tensor, size: Size | None = None) -> Tensor:
        """An RGB image, uint8 [3, H, W], to the network's input without padding, float32 [3, h, w].

        `size` is the photo's, where the image is less than all of its pixels (`decode.decode_for`).
        """


@dataclass(frozen=True)
class WholeImage:
    """All of an image, for detectors and segmentors."""

    preprocess: Preprocess

    def needed(self, size: Size) -> Size:
        """As `InputTransform`."""
        return size_in_tests(size, self.preprocess)

    def __call__(self, image: Tensor, size: Size | None = None) -> Tensor:
        """As `InputTransform`."""
        return network_input(image, self.preprocess, size)


class MiddleSquare(ClassTestTransform):
    """The middle of an image, for classifiers."""

    def __call__(self, image: Tensor, size: Size | None = None) -> Tensor:
        """As `InputTransform`; the square is that of the pixels there are, as in an evaluation."""
        return super().__call__(image)


def input_transform(described: config.Model) -> InputTransform:
    """How a model's images are prepared."""
    kind = MiddleSquare if described.task == "classification" else WholeImage
    return kind(described.preprocess)
