"""What training does to images and objects at random: the settings, and the recipes of the released detectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from piip.config import Frozen

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Sides = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class RandomCrop(Frozen):
    """The second policy of the multi-scale recipes: resize, cut out a part, then the multi-scale resize."""

    scales: Sides = (400, 500, 600)
    """short sides of the resize before the crop, one chosen at random"""
    sides: tuple[PositiveInt, PositiveInt] = (384, 600)
    """least and largest side of the part; height and width are drawn apart, and cut off at the image"""
    probability: Probability = 0.5

    @model_validator(mode="after")
    def _check(self) -> RandomCrop:
        if self.sides[0] > self.sides[1]:
            raise ValueError(f"sides {self.sides}: the first is the least and must not be larger than the second")
        return self


class RandomTile(Frozen):
    """A part of a large image at its own pixels, around an object or, at times, where there is none."""

    side: PositiveInt = 1024
    """of the part, in pixels of the image file; what is smaller is taken whole"""
    keep: Probability = 0.3
    """share of an object's box that must be in the part; of others nothing is learnt"""
    empty: Probability = 0.1
    """share of the parts that have no object at all, as far as an image has such a place"""

    @model_validator(mode="before")
    @classmethod
    def _side_alone(cls, value: Any) -> Any:
        return {"side": value} if isinstance(value, int) else value


class Augmentation(Frozen):
    """Random changes of training images. The default, a flip, is the recipe of most released models."""

    kind: Literal["detection"] = "detection"
    flip: Probability = 0.5
    """left to right"""
    turn: Probability = 0.0
    """chance of a turn by 90, 180 or 270 degrees, for images that have no upper side; with the flip, an image is seen
    in all eight ways it can lie"""
    scales: Sides | None = None
    """short sides, in pixels, of a multi-scale resize, one chosen at random; None: the model's own short side"""
    long_side: PositiveInt | None = None
    """limit of the long side in every resize; None: the model's own"""
    tiles: RandomTile | None = None
    """before all else a part of the image is cut out, which then counts as the image; a number is its side"""
    crop: RandomCrop | None = None
    """with a probability, a random part of the image, which is then resized like a whole one"""
    largest: PositiveInt | None = None
    """both sides are cut (at a random place) to at most this many pixels, after all else"""
    zoom: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] | None = None
    """range of a random factor on the size of the resized image, e.g. (0.5, 1.5); what then exceeds the model's
    own size is cut away at a random place. Good for small data sets and training from scratch"""
    colour: Probability = 0.0
    """strength of random changes of brightness, contrast and saturation: factors in 1 - colour .. 1 + colour"""

    @model_validator(mode="after")
    def _check(self) -> Augmentation:
        if self.crop is not None and self.scales is None:
            raise ValueError("a crop needs `scales`: the part is resized to one of them")
        if self.zoom is not None and self.zoom[0] > self.zoom[1]:
            raise ValueError(f"zoom {self.zoom}: the first factor must not be larger than the second")
        if self.zoom is not None and (self.scales is not None or self.crop is not None):
            raise ValueError("use either `zoom` or `scales` (with `crop`): both change the image's scale")
        return self

    @classmethod
    def none(cls) -> Augmentation:
        """Images as they are evaluated."""
        return cls(flip=0)

    def scaled(self, factor: float) -> Augmentation:
        """The same changes for images that are `factor` times as large: all that is in pixels is multiplied by it.

        But for the side of `tiles`, which is in pixels of the files.
        """

        def times(*sides: int) -> tuple[int, ...]:
            return tuple(max(1, round(side * factor)) for side in sides)

        def once(side: int | None) -> int | None:
            return None if side is None else times(side)[0]

        crop = self.crop and self.crop.model_copy(
            update={"scales": times(*self.crop.scales), "sides": times(*self.crop.sides)}
        )
        pixels = {"scales": self.scales and times(*self.scales), "crop": crop}
        return self.model_copy(update=pixels | {"long_side": once(self.long_side), "largest": once(self.largest)})


def multi_scale(factor: float = 1.0, largest: int = 1024) -> Augmentation:
    """The recipe of the released InternViT-6B and DINO models; they use (1, 1024), (1.5, 1536), (1.75, 1792).

    Short sides 480 to 800 in steps of 32 with a long side up to 1333, or, for half of the images, a random part
    first; all times `factor`.
    """
    return Augmentation(
        scales=tuple(int(side * factor) for side in range(480, 801, 32)),
        long_side=int(1333 * factor),
        crop=RandomCrop(scales=tuple(int(side * factor) for side in (400, 500, 600)),
                        sides=(int(384 * factor), int(600 * factor))),
        largest=largest,
    )  # fmt: skip


def from_scratch() -> Augmentation:
    """For small data sets and untrained branches: changes of scale and colour besides the flip."""
    return Augmentation(zoom=(0.6, 1.4), colour=0.3)
