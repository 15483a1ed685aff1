"""A pyramid of one's own, in a YAML file that every verb takes where it takes a model's name.

name: my_pyramid
pyramid: vit_tiny_patch16_224@672 + vit_small_patch14_dinov2@448
head: mask_rcnn
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field

from piip import config
from piip.config.backbone import Stride
from piip.config.errors import problems
from piip.config.heads import TASKS
from piip.config.spelled import backbone_of, spelled_branches
from piip.config.timm_models import pixel_statistics
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.data.names.coco import COCO_CLASSES
from piip.data.text_files import read_typed_yaml

SUFFIXES = (".yaml", ".yml")
DETECTOR_STRIDES: dict[str, tuple[Stride, ...]] = {"dino": (8, 16, 32)}
"""of the maps, where a head of that kind does not read all four"""


@dataclass(frozen=True)
class Own:
    """What a file describes."""

    model: config.Model
    recipe: dict[str, Any]
    """settings of its training, over the task's"""


class Described(config.Frozen):
    """The fields of such a file."""

    name: str
    pyramid: str | list[dict[str, Any]]
    """branches in words, see `config.spelled`, or a list of the fields of `config.Branch`; finest first"""
    head: str | dict[str, Any] = "mask_rcnn"
    """its kind (mask_rcnn, dino, upernet, classifier), or fields of its class in `config` with `kind`"""
    classes: tuple[str, ...] | None = None
    """in training they come from the data; None until then: those of COCO, ADE20K or two for classification"""
    pretrained: bool = False
    """begin as timm's weights"""
    groups: int | None = None
    windows: int | str | None = "auto"
    interaction: dict[str, Any] = Field(default_factory=dict)
    maps: dict[str, Any] = Field(default_factory=dict)
    preprocess: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    """settings, see `piip settings`"""


def is_description(model: object) -> bool:
    """Whether a file of this kind is meant."""
    return isinstance(model, str | Path) and str(model).lower().endswith(SUFFIXES)


def read_own(path: str | Path) -> Own:
    """The model that a file describes; a run's own `config.yaml` is one too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: with the file, the place and what is wrong there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it would describe a model, see docs/own_pyramid.md")
    content = read_typed_yaml(path)
    try:
        if isinstance(content, dict) and "model" in content:
            model = config.Model.model_validate(content["model"])
            return Own(model, {})
        described = Described.model_validate(content)
        return Own(model_of(described), dict(described.training))
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: {problems(error, Described.model_fields)}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def model_of(described: Described) -> config.Model:
    """The model, with what is usual where nothing is said."""
    head = {"kind": described.head} if isinstance(described.head, str) else described.head
    kind = str(head.get("kind", "mask_rcnn"))
    if kind not in TASKS:
        raise ValueError(f"head {kind!r}: use one of {', '.join(TASKS)}")
    task = TASKS[kind]
    branches = _branches(described)
    strides = None if task == "classification" else DETECTOR_STRIDES.get(kind, (4, 8, 16, 32))
    backbone = backbone_of(branches, strides, described.interaction, described.maps)
    if kind == "classifier":
        head = {"separate_head": False} | head
    return config.Model.model_validate(
        {
            "name": described.name,
            "backbone": backbone.model_dump(),
            "head": {"kind": kind} | head,
            "classes": described.classes or usual_classes(task),
            "category_ids": tuple(COCO_CLASSES) if described.classes is None and task == "detection" else None,
            "preprocess": _preprocess(branches, task) | described.preprocess,
        }
    )


def usual_classes(task: str) -> tuple[str, ...]:
    """Until there is data that says otherwise."""
    if task == "detection":
        return tuple(COCO_CLASSES.values())
    return ADE20K_CLASSES if task == "segmentation" else ("first", "second")


def _branches(described: Described) -> tuple[config.Branch, ...]:
    if isinstance(described.pyramid, str):
        windows: Any = described.windows
        return spelled_branches(described.pyramid, described.groups, windows, described.pretrained)
    usual: dict[str, Any] = {"pretrained": True} if described.pretrained else {}
    usual |= {} if described.groups is None else {"groups": described.groups}
    return tuple(config.Branch.model_validate(usual | branch) for branch in described.pyramid)


def _preprocess(branches: tuple[config.Branch, ...], task: str) -> dict[str, Any]:
    """The finest branch sees the image at its own size; pixels are normalised as the last branch's weights expect."""
    side = branches[0].size
    usual: dict[str, Any] = {"long_side": side, "short_side": side}
    if task == "classification":
        usual["pad_multiple"] = 1
    if (model := branches[-1].model) is not None:
        usual["mean"], usual["std"] = pixel_statistics(model)
    return usual
