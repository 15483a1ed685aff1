"""Official checkpoints (OpenGVLab/PIIP) to our model folders and back: bit for bit, and without a second copy.

A checkpoint of 15 GB converts in about a gigabyte: the module lives on the meta device and only gives names and
shapes, the file is mapped, and its tensors are copied one after the other, dtypes as they are.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor

from piip import config, zoo
from piip.config.errors import problems
from piip.files import TEMPORARY, atomic_write, write_json
from piip.model import PIIPModel
from piip.version import __version__
from piip.weights import files, opengvlab
from piip.weights.keymap import KeyMismatch, convert
from piip.weights.official.classifiers import is_classifier
from piip.weights.official.keys import official_buffers, official_keys
from piip.weights.official.upernet import with_counters
from piip.weights.pickles import is_mapped, read_state_dict
from piip.weights.streams import in_shards, order, write_stream

SHARD_BYTES = 64 << 20
"""the mapped file is let go of after so many bytes, so that pages that were read do not pile up"""


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote."""

    path: Path
    model: config.Model
    tensors: int
    parameters: int


def to_ours(
    source: str | Path, target: str | Path, official: str | Path | None = None, model: str | None = None
) -> Converted:
    """Convert an official checkpoint into a folder with `model.safetensors` and `config.json`.

    Args:
        source: `.pth` of mmdetection, mmsegmentation or classification, or DeepSpeed's `.pt`.
        target: a folder that does not exist yet or is empty, or a `.safetensors` file.
        official: the resolved official config as JSON. Either this or `model` is needed, unless the name of the file is
            that of a released one.
        model: the zoo's name of the model.

    Raises:
        WeightsError: (a ValueError) for whatever is wrong with source, config or target; nothing is written then.
    """
    source, target = Path(source), Path(target)
    _check_free(target)
    if source.suffix == files.SUFFIX or (source / files.FOLDER_WEIGHTS).is_file():
        raise files.WeightsError(f"{source}: a model of ours already; --to-official converts it back")
    if not source.exists():
        raise files.WeightsError(f"{source}: no such file")
    wanted, classification = _wanted(source, official, model)
    state = read_state_dict(source, arguments=classification)
    module = _build(wanted, state, source)
    names = _matched(module, state, source)
    layout = {ours: _value(state, name) for ours, name in names.items()}
    with _complete(target) as temporary:
        _write_model(temporary, module.config, layout, _values(source, classification, names, layout))
    return Converted(target, module.config, len(layout), sum(t.numel() for t in layout.values()))


def to_official(source: str | Path, target: str | Path) -> Converted:
    """Write a saved model as an official checkpoint, `{"state_dict": ...}` or, for a classifier, `{"model": ...}`.

    Args:
        source: anything that `piip.PIIP` loads.
        target: a `.pth` file that does not exist yet.

    Raises:
        WeightsError: the source is broken, or the target exists.
        ValueError: the official code has no class for the model.
    """
    target = Path(target)
    if target.exists():
        raise files.WeightsError(f"{target}: exists already; choose another name or remove it first")
    model = files.read_config(source)
    with torch.device("meta"):
        module = PIIPModel(files.without_downloads(model))
    tensors = files.read_tensors(source)
    try:
        convert(tensors, {key: key for key in module.state_dict()}, _shapes(module))
    except KeyMismatch as error:
        raise files.WeightsError(f"{source}: {error}") from error
    state = {name: tensors[ours] for ours, name in official_keys(module).items()} | official_buffers(module)
    meta = {"CLASSES": model.classes, "piip_model": model.name, "piip_version": __version__}
    key = "model" if model.task == "classification" else "state_dict"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        torch.save({key: state, "meta": meta}, temporary)
    return Converted(target, model, len(state), sum(tensor.numel() for tensor in tensors.values()))


# -- which model it is -----------------------------------------------------------------------------------------------


def _wanted(source: Path, official: str | Path | None, model: str | None) -> tuple[config.Model | dict[str, Any], bool]:
    """What describes the model, and whether it is a classifier."""
    if official is not None and model is not None:
        raise files.WeightsError("give a config or a model's name, not both")
    released = _released(source)
    if official is not None:
        _check_name(source, released, _released(official))
        described = read_official(Path(official))
        return described, is_classifier(described)
    if model is None and released is None:
        raise files.WeightsError(
            f"{source}: say which model this is, by its official config (--config FILE.json) or by its name "
            "(--model NAME, see `piip models`)"
        )
    entry = zoo.entry(model or str(released))
    _check_name(source, released, entry.name)
    return entry.config(), entry.task == "classification"


def _released(path: str | Path) -> str | None:
    """The zoo's name of the model whose official config has the name of this file."""
    names = (entry.name for entry in zoo.MODELS.values() if entry.official_config == Path(path).stem)
    return next(names, None)


def _check_name(source: Path, released: str | None, model: str | None) -> None:
    """Models that differ in nothing but their images' sizes have the same weights: only the name tells them apart."""
    if released is not None and model is not None and released != model:
        raise files.WeightsError(f"{source}: by its name this is {released}, not {model}; rename the file if its name "
                                 "is wrong")  # fmt: skip


def read_official(path: Path) -> dict[str, Any]:
    """A resolved official config from a JSON file; its `name` is the zoo's where the file's name is an official one."""
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise files.WeightsError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        hint = (
            "; official configs are Python files, which are not run: resolve it to JSON first"
            if path.suffix == ".py"
            else ""
        )
        raise files.WeightsError(f"{path}: not readable as JSON ({error}){hint}") from None
    if not isinstance(described, dict):
        raise files.WeightsError(f"{path}: not an official config: a JSON object with `model` or `backbone` is needed")
    return {"name": _released(path) or path.stem} | described


def _build(wanted: config.Model | dict[str, Any], state: Mapping[str, Tensor], source: Path) -> PIIPModel:
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


def _matched(module: PIIPModel, state: Mapping[str, Tensor], source: Path) -> dict[str, str]:
    """Our keys with their official names, after both sides were found to fit exactly."""
    names = official_keys(module)
    try:
        complete = with_counters(opengvlab.without_derived_buffers(module, state), names.values())
        convert(complete, names, _shapes(module))
    except KeyMismatch as error:
        raise files.WeightsError(f"{source}: {error}. Is this the checkpoint's own config?") from error
    return names


def _shapes(module: PIIPModel) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in module.state_dict().items()}


# -- writing ---------------------------------------------------------------------------------------------------------


def _value(state: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor of the file; BatchNorm's counters, which change no output, may be missing."""
    return state[name] if name in state else torch.zeros((), dtype=torch.int64)


def _values(
    source: Path, classification: bool, names: Mapping[str, str], layout: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Our keys and their tensors, from a fresh mapping of the file for every shard: what was read can be forgotten."""
    limit = SHARD_BYTES if is_mapped(source) else 1 << 62  # older formats are in memory anyway
    state: dict[str, Tensor] | None = None
    for shard in in_shards(order(layout), layout, limit):
        state = read_state_dict(source, arguments=classification) if state is None or is_mapped(source) else state
        for key in shard:
            yield key, _value(state, names[key])


def _write_model(
    path: Path, model: config.Model, layout: Mapping[str, Tensor], tensors: Iterator[tuple[str, Tensor]]
) -> None:
    metadata = {"format": "pt", files.VERSION_KEY: __version__}
    if path.name.endswith(files.SUFFIX):
        write_stream(path, layout, tensors, metadata | {files.CONFIG_KEY: model.model_dump_json()})
        return
    path.mkdir()
    write_json(path / files.FOLDER_CONFIG, model.model_dump(mode="json"), indent=2)
    write_stream(path / files.FOLDER_WEIGHTS, layout, tensors, metadata)


def _check_free(target: Path) -> None:
    is_file = target.suffix == files.SUFFIX
    if target.exists() and (is_file or not target.is_dir() or any(target.iterdir())):
        raise files.WeightsError(f"{target}: exists already; choose another name or remove it first")
    if target.suffix and not is_file and not target.is_dir():
        raise files.WeightsError(f"{target}: give a folder (a path without suffix) or a {files.SUFFIX} file")


@contextmanager
def _complete(target: Path) -> Iterator[Path]:
    """A path beside `target` that becomes it if all goes well, and is removed if not."""
    created = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex[:8]}{TEMPORARY}{target.name}")
    try:
        yield temporary
        if target.is_dir():
            target.rmdir()  # an empty folder stood there
        temporary.replace(target)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
        for parent in created:
            parent.rmdir()
        raise
