"""Typed, frozen description of a vision encoder for a language model. Use it through `piip.config`."""

from __future__ import annotations

from pydantic import PositiveFloat, model_validator

from piip.config.backbone import GROUP_NORM_GROUPS, Backbone
from piip.config.branch import Frozen
from piip.config.limits import Width

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(Frozen):
    """A backbone without maps, and a projector to a language model's width (PIIP-LLaVA)."""

    name: str
    backbone: Backbone
    width: Width = 4096
    """channels of the tokens that come out: the language model's hidden size (4096 of a 7B Vicuna, 5120 of a 13B)"""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """of RGB values in 0..1; ImageNet's, though the branches began as CLIP's"""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD

    @property
    def size(self) -> int:
        """Side of the square images, in pixels."""
        return self.backbone.branches[0].size

    @model_validator(mode="after")
    def _check(self) -> Encoder:
        if self.backbone.maps is not None:
            raise ValueError("an encoder reads the branches, not feature maps: give the backbone `maps=None`")
        if self.width % GROUP_NORM_GROUPS:
            raise ValueError(f"width {self.width} must be a multiple of {GROUP_NORM_GROUPS} (GroupNorm)")
        return self
