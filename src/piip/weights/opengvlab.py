"""Official models (OpenGVLab/PIIP) in and out: their configs and weights become our modules, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from piip.backbone import PIIPBackbone
from piip.backbone.branch import restore_buffers
from piip.model import PIIPModel
from piip.weights.keymap import KeyMismatch, convert
from piip.weights.official.branches import Official
from piip.weights.official.classifiers import classifier_config, is_classifier
from piip.weights.official.configs import backbone_config, model_config
from piip.weights.official.keys import official_buffers, official_keys
from piip.weights.official.upernet import with_counters

__all__ = ["backbone_config", "build", "load", "model_config", "official_keys", "to_official",
           "without_derived_buffers"]  # fmt: skip


def load(official: Official, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The module that an official config describes, filled with official weights, in eval mode.

    Args:
        official: an official `backbone` or `model` dictionary, or a whole resolved config with a `model` in it.
        state_dict: its weights under the official names; every key must be used and every parameter filled. Buffers
            that follow from the architecture (BEiT's `relative_position_index`) and counters of BatchNorm may be left
            out.

    Returns:
        `PIIPBackbone` for a backbone dictionary, `PIIPModel` for a model dictionary and for a backbone dictionary
        without a `type`, which is a classifier: its `forward` gives class logits [B, K]. The module's parameters are
        the tensors of `state_dict`, not copies.

    Raises:
        ValueError: for a config this version cannot build; KeyMismatch (a ValueError) lists keys that do not fit.
    """
    with torch.device("meta"):
        module = build(official, weights=state_dict)
    shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
    names = official_keys(module)
    ours = convert(with_counters(without_derived_buffers(module, state_dict), names.values()), names, shapes)
    module.load_state_dict(ours, strict=True, assign=True)
    restore_buffers(module)
    return module.eval()


def to_official(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a `PIIPBackbone` or `PIIPModel` under the official names, buffers included: undoes `load`.

    Raises ValueError for a model that the official code has no class for.
    """
    state = module.state_dict()
    return {name: state[ours] for ours, name in official_keys(module).items()} | official_buffers(module)


def build(
    official: Official, groups: int | None = None, weights: Mapping[str, Tensor] | None = None
) -> PIIPBackbone | PIIPModel:
    """The module of an official config with fresh weights; for `groups` see `official_config.backbone_config`.

    `weights`, under official names, tell how many groups there are where the config does not, and how many classes a
    classifier has; without them it has ImageNet's.
    """
    groups = groups or _number_of_groups(weights or {})
    if is_classifier(official):
        shapes = {name: tensor.shape for name, tensor in (weights or {}).items()}
        return PIIPModel(classifier_config(official, shapes, groups))
    if "model" in official or "backbone" in official:
        return PIIPModel(model_config(official, groups))
    return PIIPBackbone(backbone_config(official, groups))


def _number_of_groups(keys: Iterable[str]) -> int | None:
    """Interactions in an official state dict."""
    found = [int(match[1]) for key in keys if (match := re.match(r"(?:backbone\.)?interactions\.(\d+)\.", key))]
    return max(found) + 1 if found else None


def without_derived_buffers(module: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official weights without the buffers that follow from the architecture (BEiT's `relative_position_index`).

    Raises KeyMismatch where such a buffer holds anything else than `module` computes: it was another architecture.
    """
    buffers = official_buffers(module)
    changed = [
        name for name, buffer in buffers.items() if name in state_dict and not torch.equal(state_dict[name], buffer)
    ]
    if changed:
        raise KeyMismatch(f"the weights do not fit this model; buffers with other contents: {', '.join(changed)}")
    return {name: tensor for name, tensor in state_dict.items() if name not in buffers}
