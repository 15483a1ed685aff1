"""What an exported file says of itself, as JSON inside it."""

from __future__ import annotations

import json
from typing import Literal

import pydantic

from piip import config, zoo
from piip.config.branch import Frozen
from piip.config.errors import problems
from piip.version import __version__
from piip.weights.errors import WeightsError

KEY = "piip"
"""under which the text lies in a file's metadata"""
LARGEST = 64 << 20
"""characters of it that are read"""

Format = Literal["onnx", "openvino", "pt2"]
Part = Literal["model", "backbone"]


class Description(Frozen):
    """All that a predictor needs beside the graph."""

    piip_version: str = __version__
    format: Format
    part: Part = "model"
    """the whole model, or the backbone, whose outputs are its feature maps"""
    inputs: tuple[str, ...]
    """`images` [B, 3, height, width] float32, normalised RGB, padded right and below with zeros; for detectors also
    `sizes` [B, 2] float32, the (height, width) of each image without its padding"""
    outputs: tuple[str, ...]
    """see `docs/export.md`"""
    batch: int
    """images at a time"""
    dynamic: bool = False
    """whether any number of images at a time will do; `batch` is then the one that the graph was traced with"""
    height: int
    width: int
    half: bool = False
    """whether weights are stored in half precision"""
    licences: dict[str, str] = pydantic.Field(default_factory=dict)
    """of the weights, as far as they are known"""
    classes: tuple[str, ...]
    preprocess: config.Preprocess
    config: config.Model
    """the whole model's"""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that the graph takes."""
        return self.height, self.width

    @property
    def slides(self) -> bool:
        """Whether the graph is shown windows of larger images."""
        head = self.config.head
        return isinstance(head, config.UperNet) and head.window is not None

    def text(self) -> str:
        """As JSON."""
        return self.model_dump_json()


def read_description(text: str | None, source: str) -> Description:
    """The description in a file's metadata; WeightsError where there is none that makes sense."""
    if text is None:
        raise WeightsError(f"{source}: says nothing of a PIIP model; was it written by `piip export`?")
    try:
        if len(text) > LARGEST:
            raise ValueError("it is too long")
        return Description.model_validate(json.loads(text))
    except pydantic.ValidationError as error:
        raise WeightsError(f"{source}: its description is not valid: {problems(error)}") from error
    except ValueError as error:
        raise WeightsError(f"{source}: its description is no JSON: {error}") from error


def licences_of(model: config.Model, licence: str | None) -> dict[str, str]:
    """What was given as the weights' licence, and those of what a published model of this name began with."""
    entry = zoo.MODELS.get(model.name)
    known = {} if entry is None else {key: name for key, name in entry.licences.items() if key != "checkpoint"}
    return known if licence is None else {"weights": licence} | known
