"""Images and their objects to what the network takes: resize, crop, flip, normalise.

All geometry is decided first, as a list of steps that depends on the image's size and on torch's random
numbers only; then the same steps run over the image, the boxes and the masks. So boxes that leave the image
never cost a mask, and masks can be rasterised, resized and cropped a few at a time: hundreds of objects on a large
photo need the memory of their final masks, not of all masks at the photo's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from piip.config import Preprocess, View
from piip.data.detection.augmentation import Augmentation
from piip.data.detection.random_tile import random_cut
from piip.data.detection.steps import Crop, Flip, Resize, Step, Turn, shown_after
from piip.data.quarter_turns import drawn_quarters
from piip.data.surround import Shown, Surround, Surroundings, alike
from piip.data.transforms import keep_ratio_size, network_input, normalised, size_in_tests
from piip.structures import Instances, Size, size_of

Rasterise = Callable[[list[int]], Tensor]
"""the masks of the objects at these positions, uint8 [n, H, W], at the size of the image as it is stored"""

MIN_SIDE = 1.0
"""pixels of the network's input; narrower boxes (cut off by a crop, say) are dropped from the targets"""

MASK_BYTES = 64 * 2**20
"""masks at full size in memory at one time, besides at least one"""


class TestTransform:
    """Resize and normalise: for evaluation and prediction."""

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def needed(self, size: Size) -> Size:
        """(height, width) that the network's input is made of, of a photo of `size`."""
        return size_in_tests(size, self.preprocess)

    def image(self, image: Tensor, size: Size | None = None) -> Tensor:
        """The network's input for an RGB image without annotations: uint8 [3, H, W] to float32 [3, h, w].

        `size` is the photo's, where the image is less than all of its pixels.
        """
        return network_input(image, self.preprocess, size)

    def __call__(
        self, image: Tensor, boxes: Tensor, labels: Tensor, masks: Rasterise | None = None, size: Size | None = None
    ) -> tuple[Tensor, Instances]:
        """Image uint8 [3, H, W], boxes [N, 4], labels [N] to the network's input and its targets.

        Boxes and masks are in pixels of `size`, which is the image's own unless it is given.
        """
        size = size or size_of(image)
        image, objects = _apply([Resize(self.needed(size))], image, boxes, labels, masks, size)
        return normalised(image, self.preprocess), objects

    def seen(
        self, image: Tensor, boxes: Tensor, labels: Tensor, masks: Rasterise | None = None, size: Size | None = None
    ) -> tuple[Tensor, Instances, tuple[Surround | None, ...]]:
        """The same, and no views: of a whole image all branches see the same."""
        return *self(image, boxes, labels, masks, size), ()


class TrainTransform:
    """Random changes, resize and normalise. Draws from torch's global generator only: seed it per sample.

    `views`: what the branches see of a photo around its tiles (`config.Backbone.views`); whatever happens to a tile
    happens to them. Without tiles all branches see the same.
    """

    def __init__(
        self, preprocess: Preprocess, augmentation: Augmentation | None = None, views: Sequence[View] = ()
    ) -> None:
        self.preprocess, self.views = preprocess, views
        self.augmentation = augmentation or Augmentation()
        colour = self.augmentation.colour
        self.colour = v2.ColorJitter(colour, colour, colour) if colour else None

    def needed(self, size: Size) -> Size:
        """(height, width) that the network's input is made of at most, of a photo of `size`."""
        settings, short = self.augmentation, self.preprocess.short_side
        if settings.tiles is not None:
            return size
        if settings.zoom is not None:
            height, width = keep_ratio_size(size, self._long_side, short)
            return math.ceil(height * settings.zoom[1]), math.ceil(width * settings.zoom[1])
        sides = [*(settings.scales or [short]), *(settings.crop.scales if settings.crop else ())]
        return keep_ratio_size(size, self._long_side, max(sides))

    def __call__(
        self, image: Tensor, boxes: Tensor, labels: Tensor, masks: Rasterise | None = None, size: Size | None = None
    ) -> tuple[Tensor, Instances]:
        """Image uint8 [3, H, W], boxes [N, 4], labels [N] to the network's input and its targets.

        Boxes and masks are in pixels of `size`, which is the image's own unless it is given.
        """
        image, objects, _ = self.seen(image, boxes, labels, masks, size)
        return image, objects

    def seen(
        self, image: Tensor, boxes: Tensor, labels: Tensor, masks: Rasterise | None = None, size: Size | None = None
    ) -> tuple[Tensor, Instances, tuple[Surround | None, ...]]:
        """The same, and what each branch sees of the photo, None: the image; none at all where all see the image."""
        size, photo, shown = size or size_of(image), image, None
        if self.augmentation.tiles is not None:
            cut = random_cut(image, boxes, labels, masks, self.augmentation.tiles)
            image, boxes, labels, masks, size, shown = *cut[:5], Shown.tile(*cut.place)
        steps = self.steps(size)
        image, objects = _apply(steps, image, boxes, labels, masks, size)
        again = None
        if self.colour is not None:
            change, again = alike(self.colour)
            image = change(image)
        image = normalised(image, self.preprocess)
        if shown is None:
            return image, objects, ()
        around = Surroundings(photo, self.preprocess, self.views)
        return image, objects, around.of(shown_after(steps, shown), again)

    def steps(self, size: Size) -> list[Step]:
        """The random geometry for an image of `size`, drawn now. Flip and turn come last, where they cost least."""
        settings = self.augmentation
        if settings.zoom is not None:
            steps = self._zoom(size, settings.zoom)
        else:
            steps = self._multi_scale(size)
        if torch.rand(()) < settings.flip:
            steps.append(Flip())
        if quarters := drawn_quarters(settings.turn):
            steps.append(Turn(quarters))
        return steps

    def _zoom(self, size: Size, factors: tuple[float, float]) -> list[Step]:
        low, high = factors
        factor = low + (high - low) * torch.rand(()).item()
        limit = keep_ratio_size(size, self._long_side, self.preprocess.short_side)
        height, width = (max(1, int(side * factor + 0.5)) for side in limit)
        crop, _ = _random_crop((height, width), limit)
        return [Resize((height, width)), *crop]

    def _multi_scale(self, size: Size) -> list[Step]:
        settings, steps = self.augmentation, list[Step]()
        crop = settings.crop
        if crop is not None and torch.rand(()) < crop.probability:
            size = keep_ratio_size(size, self._long_side, _choice(crop.scales))
            low, high = crop.sides
            part = _integer(min(size[0], low), min(size[0], high)), _integer(min(size[1], low), min(size[1], high))
            steps.append(Resize(size))
            cut, size = _random_crop(size, part)
            steps += cut
        short_side = _choice(settings.scales) if settings.scales else self.preprocess.short_side
        size = keep_ratio_size(size, self._long_side, short_side)
        steps.append(Resize(size))
        if settings.largest is not None:
            cut, size = _random_crop(size, (settings.largest, settings.largest))
            steps += cut
        return steps

    @property
    def _long_side(self) -> int:
        return self.augmentation.long_side or self.preprocess.long_side


def _apply(
    steps: Sequence[Step], image: Tensor, boxes: Tensor, labels: Tensor, masks: Rasterise | None, size: Size
) -> tuple[Tensor, Instances]:
    """Image and objects (which are in pixels of `size`) after the steps, of which the first is a resize.

    Objects that the steps leave nothing of are gone.
    """
    image = tv_tensors.Image(image)
    placed: Tensor = tv_tensors.BoundingBoxes(boxes.reshape(-1, 4), format="XYXY", canvas_size=size)
    for step in steps:
        image, placed = step(image), step(placed)
    placed = functional.clamp_bounding_boxes(placed).as_subclass(torch.Tensor)
    kept = ((placed[:, 2:] - placed[:, :2]) >= MIN_SIDE).all(dim=1).nonzero()[:, 0]
    final: Tensor | None = None
    if masks is not None:
        final = _masks(steps, masks, kept.tolist(), size, size_of(image))
        visible = final.flatten(1).amax(dim=1) > 0 if len(kept) else torch.ones(0, dtype=torch.bool)
        if not visible.all():
            kept, final = kept[visible], final[visible]
    return image.as_subclass(torch.Tensor), Instances(placed[kept], labels[kept], final)


def _masks(steps: Sequence[Step], rasterise: Rasterise, kept: list[int], size: Size, new_size: Size) -> Tensor:
    final = torch.empty((len(kept), *new_size), dtype=torch.uint8)
    count = max(1, MASK_BYTES // (size[0] * size[1]))
    for start in range(0, len(kept), count):
        masks: Tensor = tv_tensors.Mask(rasterise(kept[start : start + count]))
        for step in steps:
            masks = step(masks)
        final[start : start + count] = masks
    return final


def _random_crop(size: Size, limit: Size) -> tuple[list[Step], Size]:
    """A crop of an image of `size` to at most `limit` at a random place, and the size after it."""
    height, width = min(size[0], limit[0]), min(size[1], limit[1])
    if (height, width) == size:
        return [], size
    top, left = _integer(0, size[0] - height), _integer(0, size[1] - width)
    return [Crop(top, left, height, width)], (height, width)


def _integer(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def _choice(sides: Sequence[int]) -> int:
    return sides[_integer(0, len(sides) - 1)]
