"""Which model an official checkpoint is of: by its config, by a name, or by the config that lies inside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor

from piip import config, zoo
from piip.config.errors import problems
from piip.data.report import DataError
from piip.data.text_files import LARGEST_DESCRIPTION, read_json
from piip.model import PIIPModel
from piip.weights import files, opengvlab
from piip.weights.official.config_files import read_config_file, read_config_text
from piip.weights.official.configs import Official
from piip.weights.pickles import Checkpoint

Described = config.Model | dict[str, Any]


def describe(
    source: Path, checkpoint: Checkpoint, official: str | Path | None = None, model: str | None = None
) -> Described:
    """What describes the model in a checkpoint: a zoo config, or an official config.

    Args:
        source: the checkpoint as the user named it; the name of a released file says which model it is.
        checkpoint: its contents. A config inside it counts where nothing else describes the model.
        official: the official config, `.py` or resolved as `.json`; or
        model: the zoo's name of the model.

    Raises WeightsError where nothing describes it, or two things disagree.
    """
    if official is not None and model is not None:
        raise files.WeightsError("give a config or a model's name, not both")
    released = _released(source)
    if official is not None:
        _check_name(source, released, _released(official))
        return read_official(Path(official))
    if model is None and released is None:
        if checkpoint.config is None:
            raise files.WeightsError(
                f"{source}: say which model this is, by its official config (--config FILE.py or FILE.json) or by its "
                "name (--model NAME, see `piip models`)"
            )
        return _official(read_config_text(checkpoint.config, f"{source}: the config in it"), source.stem)
    entry = zoo.entry(model or str(released))
    _check_name(source, released, entry.name)
    return entry.config()


def read_official(path: Path) -> dict[str, Any]:
    """An official config, `.py` or resolved as JSON; its `name` is the zoo's where the file's name is an official one.

    Nothing in a `.py` file is run, see `config_files`.
    """
    name = _released(path) or path.stem
    if path.suffix == ".py":
        return _official(read_config_file(path), name)
    try:
        described = read_json(path, LARGEST_DESCRIPTION)
    except DataError as error:
        raise files.WeightsError(str(error)) from None
    if not isinstance(described, dict):
        raise files.WeightsError(f"{path}: not an official config: a JSON object with `model` or `backbone` is needed")
    return {"name": name} | described


def build(wanted: Described, state: Mapping[str, Tensor], source: Path) -> PIIPModel:
    """The described module on the meta device."""
    with torch.device("meta"):
        if isinstance(wanted, config.Model):
            return PIIPModel(wanted)
        try:
            module = opengvlab.build(wanted, weights=state)
        except (KeyError, TypeError, AttributeError) as error:
            raise files.WeightsError(
                f"the config for {source} lacks or misnames {error}; is it resolved and complete?"
            ) from error
        except pydantic.ValidationError as error:
            raise files.WeightsError(f"the config for {source} describes no model: {problems(error)}") from error
    if not isinstance(module, PIIPModel):
        raise files.WeightsError("the config describes a backbone only; the whole model's is needed, with its head")
    return module


def _official(values: Official, name: str) -> dict[str, Any]:
    """Values of a `.py` config as the JSON files have them."""
    described: dict[str, Any] = json.loads(json.dumps(values, default=list))
    model = described.get("model")
    if isinstance(model, dict) and "type" not in model and "backbone" in model:  # a classifier's
        described = {key: value for key, value in described.items() if key != "model"} | model
    return {"name": name} | described


def _released(path: str | Path) -> str | None:
    """The zoo's name of the model whose official config has the name of this file."""
    names = (entry.name for entry in zoo.MODELS.values() if entry.official_config == Path(path).stem)
    return next(names, None)


def _check_name(source: Path, released: str | None, model: str | None) -> None:
    """Models that differ in nothing but their images' sizes have the same weights: only the name tells them apart."""
    if released is not None and model is not None and released != model:
        raise files.WeightsError(f"{source}: by its name this is {released}, not {model}; rename the file if its name "
                                 "is wrong")  # fmt: skip
