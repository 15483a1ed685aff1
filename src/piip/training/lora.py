"""Low-rank adapters on the linear layers of frozen branches, by peft; what a training gives away is merged."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from piip.backbone.attention import SelfAttention
from piip.config import Frozen
from piip.inference.copies import with_shared_tensors
from piip.model import PIIPModel
from piip.weights.adapters import FIRST, SECOND, merged_weight, save_adapter

NAME = "default"
"""peft's, of the only adapter"""
MATRIX = ".lora_"
"""in the names of an adapter's parameters"""


class Lora(Frozen):
    """The branches keep their weights and learn a change of low rank (Hu et al., arXiv 2106.09685)."""

    rank: PositiveInt = 8
    alpha: PositiveFloat | None = None
    """the change is scaled by alpha / rank; None: by 1"""
    targets: tuple[str, ...] = ("qkv", "proj")
    """names of the linear layers in a block: qkv, proj, fc1, fc2 in most ViTs"""
    branches: tuple[NonNegativeInt, ...] | None = None
    """0 is the finest; None: all"""

    @property
    def scale(self) -> float:
        """Of the change."""
        return (self.alpha or self.rank) / self.rank


def lora_of(value: object) -> object:
    """8, "8" or "rank=8,alpha=16,targets=qkv,proj,branches=2" as fields; anything else as it is."""
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        return {"rank": int(value)}
    if not isinstance(value, str):
        return value
    fields: dict[str, list[str]] = {}
    key = ""
    for part in value.split(","):
        name, separator, rest = part.partition("=")
        if separator:
            key, part = name.strip(), rest
        if not key:
            raise ValueError(f"{value!r}: write a rank, or rank=8,alpha=16,targets=qkv,proj,branches=2")
        fields.setdefault(key, []).append(part.strip())
    return {key: parts if key in ("targets", "branches") else parts[0] for key, parts in fields.items()}


def add_adapters(model: PIIPModel, lora: Lora | None, seed: int) -> None:
    """Freeze branches and put adapters on their layers, which change nothing at first.

    Raises:
        ImportError: peft is not installed.
        ValueError: there is no such branch or layer, or a branch does not call the layer.
    """
    if lora is None:
        return
    places = adapted_layers(model, lora)
    from peft import LoraConfig, inject_adapter_in_model

    branches: Any = model.backbone.branches
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for index, names in places.items():
            branch = branches[index]
            branch.requires_grad_(False)
            timms = getattr(branch, "vit", None) or branch.convnext
            alpha = lora.alpha or lora.rank
            inject_adapter_in_model(LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=names), timms)  # type: ignore[arg-type]


def adapted_layers(model: PIIPModel, lora: Lora) -> dict[int, list[str]]:
    """The layers that adapters will be on, by branch; raises as `add_adapters` does."""
    if not importlib.util.find_spec("peft"):
        raise ImportError('lora needs peft: pip install "piip[lora]"')
    branches: Any = model.backbone.branches
    chosen = range(len(branches)) if lora.branches is None else lora.branches
    if beyond := [index for index in chosen if index >= len(branches)]:
        raise ValueError(f"lora on branch {beyond[0]}: the model has branches 0 (the finest) to {len(branches) - 1}")
    return {index: _layers(branches[index], index, lora.targets) for index in chosen}


def _layers(branch: nn.Module, index: int, targets: tuple[str, ...]) -> list[str]:
    """The linear layers in a branch's blocks that are meant, by their names in timm's model."""
    found = [
        (name.partition(".")[2], name.rpartition(".")[2])
        for name, module in branch.named_modules()
        if type(module) is nn.Linear and branch.layer(f"{name}.") > 0  # type: ignore[operator]
    ]
    there = sorted({short for _, short in found})
    if unknown := [target for target in targets if target not in there]:
        raise ValueError(f"lora targets {', '.join(unknown)}: the blocks of branch {index} have {', '.join(there)}")
    past = any(
        getattr(part, "q_bias", None) is not None and not isinstance(part, SelfAttention) for part in branch.modules()
    )
    if "qkv" in targets and past:
        raise ValueError(f"lora targets qkv: branch {index} reads the weights of qkv past the layer; use targets=proj")
    return [name for name, short in found if short in targets]


def merged(model: PIIPModel) -> PIIPModel:
    """An ordinary model that computes the same, around the same tensors where there is no adapter; or itself."""
    if not _adapted(model):
        return model
    copied = with_shared_tensors(model)
    for name, layer in _adapted(copied).items():
        parent, _, short = name.rpartition(".")
        plain = layer.base_layer
        with torch.no_grad():
            first, second = (part[NAME].weight for part in (layer.lora_A, layer.lora_B))
            weight = merged_weight(plain.weight, first, second, layer.scaling[NAME])
        plain.weight = nn.Parameter(weight, requires_grad=False)
        setattr(copied.get_submodule(parent), short, plain)
    return copied


def _adapted(model: nn.Module) -> dict[str, Any]:
    return {
        name: part for name, part in model.named_modules() if hasattr(part, "lora_A") and hasattr(part, "base_layer")
    }


def write_adapter(model: PIIPModel, trained: PIIPModel, lora: Lora, base: dict[str, str], path: Path) -> None:
    """The adapters of `model` and all else that was trained, see `weights.adapters`.

    `trained`: the model whose parameters say what is; `model` may be its running average.
    """
    wanted = {name for name, parameter in trained.named_parameters() if parameter.requires_grad}
    wanted |= {name for name, _ in trained.named_buffers()}
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name in wanted:
            tensors[name.replace(f".lora_A.{NAME}.weight", FIRST).replace(f".lora_B.{NAME}.weight", SECOND)] = tensor
    about = {"scale": lora.scale, "lora": lora.model_dump(mode="json"), "base": base}
    save_adapter(path, tensors, about | {"model": model.config.model_dump(mode="json")}, merged(model))
