"""What training does to classified images at random: the settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from piip.config import Frozen

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class ClassAugmentation(Frozen):
    """For classification: a part of the image at the model's size, a flip, a policy of colours and shapes, mixtures.

    The default is the recipe of the released models, which was DeiT's. Its RandAugment makes changes of 0.9 of the
    largest, but only half of the two that it draws; here both are made, at half that strength.
    """

    kind: Literal["classification"] = "classification"
    area: tuple[Annotated[float, Field(gt=0.0, le=1.0)], Annotated[float, Field(gt=0.0, le=1.0)]] = (0.08, 1.0)
    """range of the share of the image that is cut out; (1, 1) takes the middle as in evaluation"""
    flip: Probability = 0.5
    """left to right"""
    turn: Probability = 0.0
    """chance of a turn by 90, 180 or 270 degrees, for images that have no upper side"""
    policy: Literal["randaugment", "augmix", "trivialaugment"] | None = "randaugment"
    """of torchvision; "trivialaugment" makes one change of random strength"""
    strength: Annotated[float, Field(ge=0.0, le=1.0)] = 0.45
    """of the policy, as a share of the largest change"""
    erase: Probability = 0.0
    """chance that a random rectangle is replaced by noise"""
    mixup: NonNegativeFloat = 0.8
    """parameter of the beta distribution that images of a batch are blended by; 0: not at all"""
    cutmix: NonNegativeFloat = 1.0
    """the same for rectangles pasted from one image into another. With both, each has half of the batches"""
    mix: Probability = 1.0
    """share of the batches that are mixed at all"""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """share of the target that all classes divide among them"""

    @model_validator(mode="after")
    def _check(self) -> ClassAugmentation:
        if self.area[0] > self.area[1]:
            raise ValueError(f"area {self.area}: the first share must not be larger than the second")
        return self

    @classmethod
    def none(cls) -> ClassAugmentation:
        """Images and classes as they are evaluated."""
        return cls(area=(1, 1), flip=0, policy=None, mixup=0, cutmix=0, mix=0, label_smoothing=0)

    def scaled(self, factor: float) -> ClassAugmentation:
        """The same: nothing here is in pixels."""
        return self
