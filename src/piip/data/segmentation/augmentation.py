"""What training does to images and label maps at random: the settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from piip.config import Frozen


class CropAugmentation(Frozen):
    """For segmentation: resize by a random factor, cut out a crop of one size, flip, change the colours.

    The default is the recipe of the released models (ADE20K, crops of 512).
    """

    kind: Literal["segmentation"] = "segmentation"
    tiles: PositiveInt | None = None
    """side, in pixels of the image file, of a part that is cut out before all else and then counts as the image, for
    large images; like the crop it is looked for where no class has too large a share"""
    resize: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (0.5, 2.0)
    """range of a random factor on the size that the model's preprocessing gives the image"""
    crop: PositiveInt | None = None
    """side of the crop, smaller images are padded; None: the model's own short side"""
    largest_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    """of one class in a crop's annotated pixels; another place is tried, up to ten times, if there is more of it"""
    flip: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """left to right"""
    turn: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """chance of a turn by 90, 180 or 270 degrees, for images that have no upper side"""
    distortion: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """strength of the photometric distortion: brightness, contrast, saturation and hue, each in half of the images"""

    @model_validator(mode="after")
    def _check(self) -> CropAugmentation:
        if self.resize[0] > self.resize[1]:
            raise ValueError(f"resize {self.resize}: the first factor must not be larger than the second")
        return self

    @classmethod
    def none(cls) -> CropAugmentation:
        """A crop of the image as it is; where it lies still follows from seed and image."""
        return cls(resize=(1, 1), largest_share=1, flip=0, distortion=0)

    def scaled(self, factor: float) -> CropAugmentation:
        """The same changes for images that are `factor` times as large: a crop that was set is, too, but not
        `tiles`, whose pixels are those of the files."""
        return self.model_copy(update={"crop": self.crop and max(1, round(self.crop * factor))})
