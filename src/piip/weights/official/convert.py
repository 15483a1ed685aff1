"""Official checkpoints (OpenGVLab/PIIP) to our model folders and back: bit for bit, and without a second copy.

A checkpoint of 15 GB converts in about a gigabyte: the module lives on the meta device and only gives names and
shapes, the file is mapped, and its tensors are copied one after the other, dtypes as they are.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from piip import config
from piip.files import TEMPORARY, atomic_write, write_json
from piip.model import PIIPModel
from piip.version import __version__
from piip.weights import files, opengvlab
from piip.weights.keymap import KeyMismatch, convert
from piip.weights.official.class_names import with_class_names
from piip.weights.official.described import build, describe
from piip.weights.official.keys import official_buffers, official_keys
from piip.weights.official.upernet import with_counters
from piip.weights.pickles import Checkpoint, is_mapped, read_checkpoint
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
    notes: tuple[str, ...] = ()
    """what was taken for granted, or left out"""


def to_ours(
    source: str | Path,
    target: str | Path,
    official: str | Path | None = None,
    model: str | None = None,
    average: bool = False,
) -> Converted:
    """Convert an official checkpoint into a folder with `model.safetensors` and `config.json`.

    Args:
        source: `.pth` of mmdetection, mmsegmentation or classification, or DeepSpeed's `.pt` or its folder.
        target: a folder that does not exist yet or is empty, or a `.safetensors` file.
        official: the official config, a `.py` file (which is read, not run) or resolved as JSON. Either this or `model`
            is needed, unless the name of the file is that of a released one, or its config lies inside it.
        model: the zoo's name of the model.
        average: take the second set of weights, that of an EMA hook or of the running average.

    Raises:
        WeightsError: (a ValueError) for whatever is wrong with source, config or target; nothing is written then.
    """
    source, target = Path(source), Path(target)
    _check_free(target)
    if source.suffix == files.SUFFIX or (source / files.FOLDER_WEIGHTS).is_file():
        raise files.WeightsError(f"{source}: a model of ours already; --to-official converts it back")
    if not source.exists():
        raise files.WeightsError(f"{source}: no such file")
    checkpoint = read_checkpoint(source)
    wanted = describe(source, checkpoint, official, model)
    state = _weights(checkpoint, average)
    module = build(wanted, state, source)
    names = _matched(module, state, source)
    named, note = with_class_names(module.config, checkpoint.classes)
    layout = {ours: _value(state, name) for ours, name in names.items()}
    with _complete(target) as temporary:
        _write_model(temporary, named, layout, _values(checkpoint.path, average, names, layout))
    notes = tuple(text for text in (note, _left_out(checkpoint, average)) if text)
    return Converted(target, named, len(layout), sum(t.numel() for t in layout.values()), notes)


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


# -- fitting ---------------------------------------------------------------------------------------------------------


def _matched(module: PIIPModel, state: Mapping[str, Tensor], source: Path) -> dict[str, str]:
    """Our keys with their official names, after both sides were found to fit exactly."""
    names = official_keys(module)
    try:
        complete = with_counters(opengvlab.without_derived_buffers(module, state), names.values())
        convert(complete, names, _shapes(module))
    except KeyMismatch as error:
        raise files.WeightsError(f"{source}: {error}. Is this the checkpoint's own config?") from error
    return names


def _weights(checkpoint: Checkpoint, average: bool) -> dict[str, Tensor]:
    """The weights that are asked for: a running average replaces the parameters that it has, and no others."""
    if average and not checkpoint.average:
        raise files.WeightsError(f"{checkpoint.path}: holds no second set of weights (`ema_*` buffers, `model_ema`); "
                                 "mmengine's EMA hook saves the average as the weights themselves")  # fmt: skip
    return {**checkpoint.state, **(checkpoint.average if average else {})}


def _left_out(checkpoint: Checkpoint, average: bool) -> str | None:
    if average or not checkpoint.average:
        return None
    return f"a second set of {len(checkpoint.average)} weights (of an EMA) was left out; --ema takes it"


def _shapes(module: PIIPModel) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in module.state_dict().items()}


# -- writing ---------------------------------------------------------------------------------------------------------


def _value(state: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor of the file; BatchNorm's counters, which change no output, may be missing."""
    return state[name] if name in state else torch.zeros((), dtype=torch.int64)


def _values(
    source: Path, average: bool, names: Mapping[str, str], layout: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Our keys and their tensors, from a fresh mapping of the file for every shard: what was read can be forgotten."""
    limit = SHARD_BYTES if is_mapped(source) else 1 << 62  # older formats are in memory anyway
    state: dict[str, Tensor] | None = None
    for shard in in_shards(order(layout), layout, limit):
        if state is None or is_mapped(source):
            state = _weights(read_checkpoint(source), average)
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
