"""What a user's word for a model means: a name of the zoo, a path to weights, or a file that describes a model."""

from __future__ import annotations

from pathlib import Path

from piip import config, zoo
from piip.model import PIIPModel
from piip.weights.files import SUFFIX, load_model, read_config, without_downloads
from piip.zoo.own import is_description, read_own


def is_path(model: str | Path) -> bool:
    """Whether weights in a file or folder are meant. A `Path` always means them, if not of a description.

    A model's name is one even where a folder is called so, such as that of its run.
    """
    if is_description(model):
        return False
    if isinstance(model, Path):
        return True
    return model not in zoo.MODELS and (Path(model).exists() or "/" in model or model.endswith(SUFFIX))


def config_of(model: str | Path) -> config.Model:
    """The config of a named or described model or of saved weights; ValueError where there is none of these."""
    if is_description(model):
        return read_own(model).model
    return read_config(model) if is_path(model) else zoo.entry(str(model)).config()


def open_model(model: str | Path) -> PIIPModel:
    """Saved weights, or a named or described model with fresh ones; ValueError where there is none of these."""
    return load_model(model) if is_path(model) else PIIPModel(without_downloads(config_of(model)))
