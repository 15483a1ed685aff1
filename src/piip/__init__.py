"""Parameter-Inverted Image Pyramid Networks: several backbones on several resolutions of one image.

>>> import piip
>>> piip.list_models("*nano_mask*")
['piip_nano_mask_rcnn']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from piip.version import __version__

if TYPE_CHECKING:
    from piip.api import PIIP
    from piip.model import PIIPModel
    from piip.tasks import check_data, open_data
    from piip.zoo import list_models

__all__ = [
    "PIIP",
    "PIIPModel",
    "__version__",
    "check_data",
    "create_model",
    "info",
    "list_models",
    "open_data",
]

_HOME = {
    "PIIP": "piip.api",
    "PIIPModel": "piip.model",
    "check_data": "piip.tasks",
    "list_models": "piip.zoo",
    "open_data": "piip.tasks",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import piip` and `piip --help` need not wait for torch.
    if name not in _HOME:
        raise AttributeError(f"module 'piip' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def create_model(name: str, classes: tuple[str, ...] | None = None, pretrained: bool = False) -> PIIPModel:
    """The zoo's model `name` as a module, for `classes` (default: the published ones).

    With fresh weights; with `pretrained`, with the released ones but for classes that these do not know.
    ValueError for a name that is not known, or classes that are no different names.
    """
    from piip.model import PIIPModel
    from piip.zoo import entry

    config = entry(name).config()
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
