"""Images and their label maps to what a segmentor takes: resize, crop, flip, distort, normalise, pad.

As in the reference (mmsegmentation's ADE20K recipe): bilinear images and nearest-neighbour labels, all from torch's
global generator, which the data set seeds per sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from piip.config import Preprocess, View
from piip.data.quarter_turns import drawn_quarters, turned
from piip.data.segmentation.augmentation import CropAugmentation
from piip.data.surround import Shown, Surround, Surroundings, alike
from piip.data.transforms import keep_ratio_size, network_input, normalised, resized, size_in_tests
from piip.structures import IGNORED, Size, size_of

CROP_TRIES = 10
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32.0, 0.5, 0.5, 18.0
"""the photometric distortion's reach: grey levels, factors from 1, and steps on the colour circle"""
CIRCLE = 180
"""steps of it"""


class MaskTestTransform:
    """The image as in prediction; the labels stay at the size they were annotated in."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def needed(self, size: Size) -> Size:
        """(height, width) that the network's input is made of, of a photo of `size`."""
        return size_in_tests(size, self.preprocess)

    def image(self, image: Tensor, size: Size | None = None) -> Tensor:
        """The network's input for an RGB image without labels: uint8 [3, H, W] to float32 [3, h, w].

        `size` is the photo's, where the image is less than all of its pixels.
        """
        return network_input(image, self.preprocess, size)

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and labels [H, W] of the whole photo to the network's input and the same labels."""
        return self.image(image, size_of(labels)), labels

    def seen(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, tuple[Surround | None, ...]]:
        """The same, and no views: of a whole image all branches see the same."""
        return *self(image, labels), ()


class MaskTrainTransform:
    """Random changes, normalise, pad to the crop's size.

    `views`: what the branches see of a photo around crops of its tiles (`config.Backbone.views`), which change alike.
    """

    def __init__(self, preprocess: Preprocess, augmentation: CropAugmentation, views: Sequence[View] = ()) -> None:
        self.preprocess, self.views = preprocess, views
        self.augmentation = augmentation
        self.side = augmentation.crop or preprocess.short_side

    def needed(self, size: Size) -> Size:
        """(height, width) that the network's input is made of at most, of a photo of `size`."""
        return size if self.augmentation.tiles is not None else self._size(size, self.augmentation.resize[1])

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and labels [H, W] to the network's input [3, S, S] and its labels [S, S] int64.

        The labels are those of the whole photo; the image may be less than all of its pixels.
        """
        image, labels, _ = self.seen(image, labels)
        return image, labels

    def seen(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, tuple[Surround | None, ...]]:
        """The same, and what each branch sees of the photo, None: the image; none at all where all see the image."""
        photo, shown = image, None
        if self.augmentation.tiles is not None:
            top, left, height, width = self._place(labels, self.augmentation.tiles)
            shown = Shown.tile(left, top, left + width, top + height)
            image = functional.crop(image, top, left, height, width)
            labels = labels[top : top + height, left : left + width]
        size = self._random_size(size_of(labels))
        image, labels = resized(image, size), nearest(labels, size)
        top, left, height, width = self._place(labels, self.side)
        shown = shown and shown.resized(size).cropped(top, left, height, width)
        image = functional.crop(image, top, left, height, width)
        labels = labels[top : top + height, left : left + width]
        if torch.rand(()) < self.augmentation.flip:
            image, labels = image.flip(-1), labels.flip(-1)
            shown = shown and shown.flipped()
        if quarters := drawn_quarters(self.augmentation.turn):
            image, labels = turned(image, quarters), turned(labels, quarters)
            shown = shown and shown.turned(quarters)
        again = None
        if self.augmentation.distortion:
            change, again = alike(partial(distorted, strength=self.augmentation.distortion))
            image = change(image)
        views = Surroundings(photo, self.preprocess, self.views)
        around = () if shown is None else views.of(shown, again)
        height, width = size_of(labels)
        padding = (0, self.side - width, 0, self.side - height)
        image = F.pad(normalised(image, self.preprocess), padding)
        return image, F.pad(labels.long(), padding, value=IGNORED), around

    def _random_size(self, size: Size) -> Size:
        low, high = self.augmentation.resize
        return self._size(size, low + (high - low) * torch.rand(()).item())

    def _size(self, size: Size, factor: float) -> Size:
        limits = (max(1, int(side * factor)) for side in (self.preprocess.long_side, self.preprocess.short_side))
        return keep_ratio_size(size, *limits)

    def _place(self, labels: Tensor, side: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a crop in which no class has too large a share, if one is found soon."""
        height, width = min(side, labels.shape[0]), min(side, labels.shape[1])
        limit, tries = self.augmentation.largest_share, 1 + CROP_TRIES
        top = left = 0
        for _ in range(tries if limit < 1 else 1):
            top = int(torch.randint(0, labels.shape[0] - height + 1, ()))
            left = int(torch.randint(0, labels.shape[1] - width + 1, ()))
            if limit < 1 and varied(labels[top : top + height, left : left + width], limit):
                break
        return top, left, height, width


def varied(labels: Tensor, limit: float) -> bool:
    """Whether there are several classes, none of which has `limit` or more of the annotated pixels."""
    counts = torch.bincount(labels[labels != IGNORED].long())
    counts = counts[counts > 0]
    return len(counts) > 1 and bool(counts.max() / counts.sum() < limit)


def distorted(image: Tensor, strength: float) -> Tensor:
    """uint8 [3, H, W] with other brightness, contrast, saturation and hue, each with a chance of one half.

    The contrast is changed either before or after the colours. As in the reference, values are cut off to whole numbers
    after every change, and saturation and hue are those of HSV.
    """
    contrast_first, *chosen = (torch.rand(5) < 0.5).tolist()
    brightness, contrast, saturation, hue = ((torch.rand(4) * 2 - 1) * strength).tolist()
    with_brightness, with_contrast, with_saturation, with_hue = chosen
    if with_brightness:
        image = truncated(image.float() + BRIGHTNESS * brightness)
    if with_contrast and contrast_first:
        image = truncated(image.float() * (1 + CONTRAST * contrast))
    if with_saturation:
        turned, part, value = hsv(image)
        image = rgb(turned, truncated(part.float() * (1 + SATURATION * saturation)), value)
    if with_hue:
        turned, part, value = hsv(image)
        image = rgb((turned + math.floor(HUE * hue)) % CIRCLE, part, value)
    if with_contrast and not contrast_first:
        image = truncated(image.float() * (1 + CONTRAST * contrast))
    return image


def truncated(values: Tensor) -> Tensor:
    """As uint8, cut off at both ends and to the whole number below."""
    return values.clamp(0, 255).to(torch.uint8)


def hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in 0 .. 179 (int64, two degrees each), saturation and value in 0 .. 255 (uint8), [H, W] each, rounded.

    That is how OpenCV, which the reference uses, stores them.
    """
    red, green, blue = image.float()
    value, least = image.float().amax(0), image.float().amin(0)
    spread = value - least
    divisor = spread.clamp(min=1)
    degrees = torch.where(
        value == red,
        60 * (green - blue) / divisor,
        torch.where(value == green, 120 + 60 * (blue - red) / divisor, 240 + 60 * (red - green) / divisor),
    )
    hue = (degrees / 2).round().long() % CIRCLE
    saturation = (255 * spread / value.clamp(min=1)).round()
    return hue, saturation.to(torch.uint8), value.to(torch.uint8)


def rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """uint8 [3, H, W] from what `hsv` gives."""
    most, part = value.float(), saturation.float() / 255
    channels = []
    for offset in (5, 3, 1):  # each channel is full for a third of the circle, and falls and rises on both sides of it
        sixth = (offset + hue * 6 / CIRCLE) % 6
        away = torch.minimum(sixth, 4 - sixth).clamp(0, 1)
        channels.append(most * (1 - part * away))
    return torch.stack(channels).round().to(torch.uint8)


def nearest(labels: Tensor, size: Size) -> Tensor:
    """A label map [H, W] at another size."""
    if size_of(labels) == size:
        return labels
    mask = functional.resize(tv_tensors.Mask(labels[None]), list(size), v2.InterpolationMode.NEAREST)
    return mask.as_subclass(torch.Tensor)[0]
