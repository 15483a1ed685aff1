"""Parameter-Inverted Image Pyramid Networks: several backbones on several resolutions of one image.

>>> import piip
>>> piip.list_models("*nano_mask*")
['piip_nano_mask_rcnn']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from piip.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piip import config
    from piip.api import PIIP, compare, predict_together
    from piip.backbone.extractor import FeatureExtractor
    from piip.data.conversion import convert_data
    from piip.designs import design
    from piip.export import load_exported
    from piip.model import PIIPModel
    from piip.tasks import check_data, open_data
    from piip.tiles.data_set import tile_data
    from piip.training.callbacks import Callback
    from piip.zoo import list_models

__all__ = [
    "PIIP",
    "Callback",
    "PIIPModel",
    "__version__",
    "check_data",
    "compare",
    "convert_data",
    "create_backbone",
    "create_model",
    "design",
    "info",
    "list_models",
    "load_exported",
    "open_data",
    "predict_together",
    "tile_data",
]

_HOME = {
    "Callback": "piip.training.callbacks",
    "PIIP": "piip.api",
    "PIIPModel": "piip.model",
    "check_data": "piip.tasks",
    "compare": "piip.api",
    "convert_data": "piip.data.conversion",
    "design": "piip.designs",
    "list_models": "piip.zoo",
    "load_exported": "piip.export",
    "open_data": "piip.tasks",
    "predict_together": "piip.api",
    "tile_data": "piip.tiles.data_set",
}

_PARTS = (
    "api", "backbone", "benchmark", "config", "data", "designs", "devices", "encoder", "evaluation", "export", "files",
    "heads", "inference", "lean", "model", "ops", "pictures", "prediction", "profile", "structures", "tasks",
    "training", "weights", "zoo",
)  # fmt: skip
"""what documented calls such as `piip.config.DINO` begin with, imported on first use"""


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import piip` and `piip --help` need not wait for torch.
    from importlib import import_module

    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _PARTS:
        return import_module(f"piip.{name}")
    raise AttributeError(f"module 'piip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_PARTS, *(name for name in globals() if name.startswith("__"))})


def create_backbone(
    pyramid: str | config.Backbone,
    *,
    pretrained: bool = False,
    groups: int | None = None,
    windows: int | Literal["auto"] | None = "auto",
    strides: tuple[Literal[4, 8, 16, 32], ...] = (4, 8, 16, 32),
    weights: Mapping[int, str | Path] | None = None,
) -> FeatureExtractor:
    """A pyramid of timm models as a module for your own code: images in, feature maps out.

    Args:
        pyramid: each branch's timm name and the side of its image, finest first, such as
            "vit_tiny_patch16_224@672 + vit_small_patch14_dinov2@448"; one branch is fine. The sides give the ratios: an
            image of any size goes to the first branch as it is. Or a description, or the name of a model of the zoo.
        pretrained: begin as timm's weights (downloaded).
        groups: of blocks, after each of which the branches interact; None: as usual, see `config.spelled`.
        windows: side in cells of the attention windows of ViTs; None: global attention; "auto": by the grid.
        strides: of the maps, in pixels per cell for patches of 16.
        weights: of branches (0 is the finest) from files, or from timm as "timm:NAME", see
            `piip.weights.branches.pretrained.load_branches`.

    Returns:
        A module with `feature_info`, `out_channels` and `reductions`, whose maps cover images of any size.

    Raises:
        ValueError: names that are no branches (with near ones), other words, sizes that grow, files that do not fit.
        ConnectionError: pretrained weights are not on this machine and cannot be fetched.
    """
    from piip.backbone.extractor import FeatureExtractor
    from piip.backbone.piip import PIIPBackbone
    from piip.config.spelled import spelled_backbone
    from piip.zoo import MODELS

    if not isinstance(pyramid, str):
        described = pyramid
    elif pyramid in MODELS:
        described = MODELS[pyramid].backbone()
    else:
        described = spelled_backbone(pyramid, strides, groups, windows, pretrained)
    if not weights:
        return FeatureExtractor(PIIPBackbone(described))
    from piip.weights.branches.pretrained import check_sources, load_backbone_branches

    check_sources(described, weights)  # before anything is downloaded
    backbone = PIIPBackbone(described.without_downloads(weights))
    load_backbone_branches(backbone, weights)
    return FeatureExtractor(backbone)


def create_model(name: str, classes: tuple[str, ...] | None = None, pretrained: bool = False) -> PIIPModel:
    """The zoo's model `name`, or one that a YAML file describes, as a module, for `classes` (default: its own).

    With fresh weights; with `pretrained`, with the released ones but for classes that these do not know.
    ValueError for a name that is not known, or classes that are no different names.
    """
    from piip.model import PIIPModel
    from piip.weights.names import config_of

    config = config_of(name)
    if classes is not None:
        if isinstance(classes, str) or not classes or len(set(classes)) < len(classes):
            raise ValueError(f"classes {classes!r}: give one name or more, all different, as a tuple")
        config = config.model_copy(update={"classes": tuple(classes), "category_ids": None})
    if not pretrained:
        return PIIPModel(config)
    from piip.weights.files import load_model
    from piip.weights.hub import official_weights
    from piip.weights.transfer import note_transfer

    released = load_model(official_weights(name))
    if released.config.classes == config.classes:
        return released
    model = PIIPModel(config)
    note_transfer(model, released)
    return model


def info(name: str, size: int | tuple[int, int] | None = None) -> dict[str, Any]:
    """What `piip info NAME --json` prints: parameters and multiply-adds, as published and as run, and known facts.

    `name`: of a model, or a path to weights; `size`: side of the image, or (height, width), None for the published one.
    """
    from piip.profile import info as facts_of

    return facts_of(name, size)
