"""Images to what a classifier takes: one square, cut from the middle in evaluation and at random in training."""

from __future__ import annotations

import math

from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from piip.config import Preprocess
from piip.data.classification.augmentation import ClassAugmentation
from piip.data.quarter_turns import drawn_quarters, turned
from piip.data.transforms import normalised
from piip.structures import Size, size_of

BICUBIC = v2.InterpolationMode.BICUBIC
BILINEAR = v2.InterpolationMode.BILINEAR
BINS = 31
"""steps of strength that torchvision's policies know"""
AUGMIX_SEVERITIES = 10


class ClassTestTransform:
    """Short side to the model's size (bicubic, antialiased), middle square, normalise."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def needed(self, size: Size) -> Size:
        """(height, width) that the network's input is made of, of a photo of `size`."""
        return _at_short_side(size, self.preprocess.short_side)

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 [3, H, W] to float32 [3, S, S]."""
        return normalised(middle_square(image, self.preprocess.short_side), self.preprocess)


class ClassTrainTransform:
    """Random part, flip, policy, normalise, erase. Draws from torch's global generator only: seed it per sample."""

    def __init__(self, preprocess: Preprocess, augmentation: ClassAugmentation | None = None) -> None:
        self.preprocess = preprocess
        self.augmentation = augmentation or ClassAugmentation()
        self.part: v2.RandomResizedCrop | None = None
        if self.augmentation.area != (1.0, 1.0):
            self.part = v2.RandomResizedCrop(
                preprocess.short_side, scale=self.augmentation.area, interpolation=BICUBIC, antialias=True
            )
        self.flip = v2.RandomHorizontalFlip(self.augmentation.flip)
        self.policy = build_policy(self.augmentation, preprocess)
        self.erase = v2.RandomErasing(self.augmentation.erase, value="random") if self.augmentation.erase else None

    def needed(self, size: Size) -> Size:
        """(height, width) that the network's input is made of at most, of a photo of `size`: of its smallest part."""
        if self.part is None:
            return _at_short_side(size, self.preprocess.short_side)
        smallest = math.sqrt(min(self.part.scale) * min(self.part.ratio) * size[0] * size[1])  # its shorter side
        return _at_short_side(size, math.ceil(self.preprocess.short_side * min(size) / smallest))

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 [3, H, W] to float32 [3, S, S]."""
        if self.part is not None:
            image = self.part(image)
        else:
            image = middle_square(image, self.preprocess.short_side)
        image = turned(self.flip(image), drawn_quarters(self.augmentation.turn))
        if self.policy is not None:
            image = self.policy(image)
        image = normalised(image, self.preprocess)
        return image if self.erase is None else self.erase(image)


def build_policy(augmentation: ClassAugmentation, preprocess: Preprocess) -> v2.Transform | None:
    """torchvision's transform for a policy; what it moves into the image is of the mean colour."""
    fill = [int(value + 0.5) for value in preprocess.mean]
    strength = augmentation.strength
    if augmentation.policy == "randaugment":
        step = round(strength * (BINS - 1))
        return v2.RandAugment(2, step, BINS, interpolation=BILINEAR, fill=fill)
    if augmentation.policy == "augmix":
        return v2.AugMix(max(1, round(strength * AUGMIX_SEVERITIES)), interpolation=BILINEAR, fill=fill)
    if augmentation.policy == "trivialaugment":
        return v2.TrivialAugmentWide(BINS, interpolation=BILINEAR, fill=fill)
    return None


def middle_square(image: Tensor, side: int) -> Tensor:
    """uint8 [3, H, W] -> [3, side, side]: the short side resized to `side`, the middle cut out."""
    size = _at_short_side(size_of(image), side)
    resized = functional.resize(image, list(size), interpolation=BICUBIC, antialias=True)
    return functional.center_crop(resized, [side, side])


def _at_short_side(size: Size, side: int) -> Size:
    """(height, width) of an image of `size` that was resized to that short side."""
    height, width = (max(side, int(length * side / min(size))) for length in size)
    return height, width
