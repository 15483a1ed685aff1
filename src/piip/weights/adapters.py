"""Adapters: what a fine-tuning changed, beside the frozen weights that it began from, in a file of their own.

A linear layer with the weight W has an adapter of two thin matrices A [r, in] and B [out, r]; merged it is
W + scale * B A.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from piip import config
from piip.files import atomic_write
from piip.model import PIIPModel
from piip.weights.errors import WeightsError
from piip.weights.files import read_tensors, without_downloads
from piip.weights.streams import write_tensors
from piip.weights.transfer import transfer

KEY = "piip_adapter"
FIRST, SECOND = ".lora_A.weight", ".lora_B.weight"
TOLERANCE = 1e-3
"""relative, on sums over a frozen tensor: resized positions differ in their last bits from machine to machine"""


def merged_weight(weight: Tensor, first: Tensor, second: Tensor, scale: float) -> Tensor:
    """W + scale * B A."""
    return weight + (second @ first) * scale


def save_adapter(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], frozen: nn.Module) -> None:
    """Write what was trained, by its name in the model, the matrices as NAME.lora_A.weight and NAME.lora_B.weight.

    Args:
        path: of the file.
        tensors: all that is not as in the base.
        about: plain values: the `scale`, and where the `base` is found.
        frozen: the merged model; of the tensors that are left, sums are written, to know the base again.
    """
    rest = {name: value for name, value in frozen.state_dict().items() if name not in _changed(tensors)}
    text = json.dumps({**about, "sums": {name: _sums(value) for name, value in rest.items()}})
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        write_tensors(temporary, contiguous, {"format": "pt", KEY: text})


def read_about(path: Path) -> dict[str, Any]:
    """What `save_adapter` was told; WeightsError where the file is no adapter."""
    try:
        with safe_open(path, "pt") as opened:
            text = (opened.metadata() or {}).get(KEY)
            about = json.loads(text) if text is not None else None
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read as an adapter ({error})") from error
    if not isinstance(about, dict) or not isinstance(about.get("sums"), dict):
        raise WeightsError(f"{path}: no adapter; those are written by a training with `lora`")
    return about


def as_trained(model: PIIPModel, path: str | Path) -> PIIPModel:
    """`model`, or where the adapter was trained with other classes or another head, such a one with what fits of it.

    All that is new in it is in the adapter, or `apply_adapter` finds that it is not what it was.
    Raises WeightsError where the file is no adapter, or tells no model.
    """
    try:
        described = config.Model.model_validate(read_about(Path(path)).get("model"))
    except ValueError as error:
        raise WeightsError(f"{path}: the model in its metadata is not valid: {error}") from error
    described = without_downloads(described)
    if described == without_downloads(model.config):
        return model
    other = PIIPModel(described)
    transfer(other, model)
    return other.to(next(model.parameters()).device)


@torch.no_grad()
def apply_adapter(model: PIIPModel, path: str | Path) -> None:
    """Merge an adapter into its base, which is an ordinary model afterwards.

    Raises WeightsError for another base, and changes nothing then.
    """
    path = Path(path)
    about, tensors, state = read_about(path), read_tensors(path), model.state_dict()
    new: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SECOND):
            continue
        layer = name.removesuffix(FIRST)
        target = f"{layer}.weight" if name.endswith(FIRST) else name
        if target not in state:
            raise WeightsError(f"{path}: the model has no {target}; is it the base of the adapter? {_base(about)}")
        value = tensor
        if name.endswith(FIRST):
            value = merged_weight(state[target].float(), tensor, tensors[layer + SECOND], float(about["scale"]))
        if value.shape != state[target].shape:
            raise WeightsError(f"{path}: {target} has another shape in the model. {_base(about)}")
        new[target] = value
    for name, sums in about["sums"].items():
        if name not in state or not _are_close(_sums(state[name]), sums):
            raise WeightsError(f"{path}: the model's {name} is not that of the adapter's base. {_base(about)}")
    model.load_state_dict(new, strict=False)


def _base(about: Mapping[str, Any]) -> str:
    return f"It was trained on {json.dumps(about.get('base'))}"


def _changed(tensors: Mapping[str, Tensor]) -> set[str]:
    return {f"{name.removesuffix(FIRST)}.weight" if name.endswith(FIRST) else name for name in tensors}


def _sums(tensor: Tensor) -> list[float]:
    return [float(tensor.double().sum()), float(tensor.double().abs().sum())]


def _are_close(one: list[float], other: list[float]) -> bool:
    size = max(abs(other[1]), 1e-12)
    return all(abs(a - b) <= TOLERANCE * size for a, b in zip(one, other, strict=True))
