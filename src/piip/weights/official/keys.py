"""Our state-dict keys with their official names (OpenGVLab/PIIP)."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from piip import config
from piip.backbone import PIIPBackbone
from piip.backbone.beit import RelativeBiasAttention, relative_position_index
from piip.model import PIIPModel
from piip.weights.keymap import Rule, key_map
from piip.weights.official.classifiers import classifier_rules
from piip.weights.official.dino import dino_rules
from piip.weights.official.upernet import upernet_rules


def official_keys(module: nn.Module) -> dict[str, str]:
    """Every key of our state dict with its official name.

    Raises ValueError for a model that the official code has no class for.
    """
    backbone = _backbone(module)
    rules = _backbone_rules(backbone.config)
    if isinstance(module, PIIPModel) and isinstance(module.config.head, config.Classifier):
        ours = [(f"backbone\\.{key}", name) for key, name in rules]
        rules = ours + classifier_rules(len(backbone.branches))
    elif isinstance(module, PIIPModel):
        ours = [(f"backbone\\.{key}", _prefixed(theirs)) for key, theirs in rules]
        rules = ours + _head_rules(module.config.head)
    return key_map(module.state_dict().keys(), rules)


def _head_rules(head: config.Head) -> list[Rule]:
    if isinstance(head, config.DINO):
        return dino_rules(head)
    return upernet_rules() if isinstance(head, config.UperNet) else MASK_RCNN_RULES


def official_buffers(module: nn.Module) -> dict[str, Tensor]:
    """What official files hold beyond our state dict, because it follows from the architecture: by official name."""
    backbone = _backbone(module)
    prefix = "backbone." if isinstance(module, PIIPModel) else ""
    buffers = {}
    for index, branch in enumerate(backbone.branches):
        if backbone.config.branches[index].family != "beit":
            continue
        for number, block in enumerate(branch.vit.blocks):
            assert isinstance(block.attn, RelativeBiasAttention)
            name = f"{prefix}{_branch_prefix(backbone.config, index)}blocks.{number}.attn.relative_position_index"
            buffers[name] = relative_position_index(block.attn.window, torch.device("cpu"))
    return buffers


def _backbone(module: nn.Module) -> PIIPBackbone:
    backbone = module.backbone if isinstance(module, PIIPModel) else module
    if not isinstance(backbone, PIIPBackbone):
        raise ValueError(f"{type(module).__name__} is no PIIP model")
    for index, branch in enumerate(backbone.config.branches):
        if branch.model is not None:
            raise ValueError(
                f"branch {index} is timm's {branch.model!r} by name, for which the official code has no class; a "
                "branch given by its architecture (`family`, `depth`, `width`, ...) can be converted"
            )
    return backbone


def _branch_prefix(backbone: config.Backbone, index: int) -> str:
    count = len(backbone.branches)
    return "" if count == 1 else f"branch{count - index}."


def _backbone_rules(backbone: config.Backbone) -> list[Rule]:
    count = len(backbone.branches)
    rules: list[Rule] = []
    for index, branch in enumerate(backbone.branches):
        rules += _branch_rules(branch, rf"branches\.{index}\.", _branch_prefix(backbone, index))
    if count == 1:
        up = [(r"maps\.levels\.0\.(\d)\.(.+)", r"up1.\1.\2"), (r"maps\.levels\.1\.(.+)", r"up2.0.\1")]
        return [*rules, *up]
    for index in range(count - 1):
        # Inside a unit the official names always call the coarser branch 1 and the finer one 2.
        pair = f"interaction_units_{count - index - 1}{count - index}"
        for direction, name in (("to_coarse", "branch2to1"), ("to_fine", "branch1to2")):
            rules += injector_rules(
                rf"interactions\.(\d+)\.units\.{index}\.{direction}", rf"interactions.\1.{pair}.{name}", backbone
            )
    levels: list[Rule] = [(r"maps\.levels\.0\.(\d\..+)", r"fpn1.\1"), (r"maps\.levels\.1\.(.+)", r"fpn2.0.\1")]
    return rules + _merge_rules(count) + levels


def _merge_rules(count: int) -> list[Rule]:
    earlier = r"earlier_merges\.(\d+)"
    return [
        (r"merge\.weights\.(\d)", lambda match: f"w{count - int(match[1])}"),
        (r"merge\.projections\.(\d)\.(.+)", lambda match: f"merge_branch{count - int(match[1])}.{match[2]}"),
        (
            rf"{earlier}\.weights\.(\d)",
            lambda match: f"intermediate_merging_{match[1]}_w{count - int(match[2])}",
        ),
        (
            rf"{earlier}\.projections\.(\d)\.(.+)",
            lambda match: f"intermediate_merging_{match[1]}_branch{count - int(match[2])}.{match[3]}",
        ),
    ]


def _branch_rules(branch: config.Branch, ours: str, theirs: str) -> list[Rule]:
    if branch.family == "convnext":
        return _convnext_rules(ours + r"convnext\.", theirs + "convnext_model.")
    vit = ours + r"vit\."
    if branch.family == "uni_perceiver":
        return _uni_perceiver_rules(ours, theirs)
    rules: list[Rule] = []
    if branch.family == "beit" or (branch.family == "vit" and branch.position_prefix == 0):
        # The official class for branches with a class token's position (`InternViT6B`) names LayerScale as timm does.
        rules.append((vit + r"(blocks\.\d+)\.ls(\d)\.gamma", theirs + r"\1.gamma_\2"))
    return [*rules, (vit + r"(.+)", theirs + r"\1")]


def _uni_perceiver_rules(ours: str, theirs: str) -> list[Rule]:
    block, layer = ours + r"vit\.blocks\.(\d+)\.", theirs + r"layers.\1."
    embedding = theirs + "visual_embed."
    return [
        (ours + r"(spatial|temporal)_pos_embed", embedding + r"patch_embed.\1_pos_embed.weight"),
        (ours + r"vit\.patch_embed\.(.+)", embedding + r"patch_embed.\1"),
        (ours + r"vit\.norm_pre\.(.+)", embedding + r"embeddings_norm.\1"),
        (block + r"ls(\d)\.gamma", layer + r"gamma_\2"),
        (block + r"attn\.qkv\.(.+)", layer + r"self_attn.in_proj.\2"),
        (block + r"attn\.proj\.(.+)", layer + r"self_attn.out_proj.\2"),
        (block + r"mlp\.fc(\d)\.(.+)", layer + r"linear\2.\3"),
        (block + r"(norm\d\..+)", layer + r"\2"),
    ]


def _convnext_rules(ours: str, theirs: str) -> list[Rule]:
    """Official branches keep the names of Hugging Face's ConvNextModel."""
    block, layer = ours + r"stages\.(\d)\.blocks\.(\d+)\.", theirs + r"encoder.stages.\1.layers.\2."
    return [
        (ours + r"stem\.0\.(.+)", theirs + r"embeddings.patch_embeddings.\1"),
        (ours + r"stem\.1\.(.+)", theirs + r"embeddings.layernorm.\1"),
        (ours + r"stages\.(\d)\.downsample\.(.+)", theirs + r"encoder.stages.\1.downsampling_layer.\2"),
        (block + r"gamma", layer + "layer_scale_parameter"),
        (block + r"conv_dw\.(.+)", layer + r"dwconv.\3"),
        (block + r"norm\.(.+)", layer + r"layernorm.\3"),
        (block + r"mlp\.fc(\d)\.(.+)", layer + r"pwconv\3.\4"),
        (ours + r"head\.norm\.(.+)", theirs + r"layernorm.\1"),
    ]


def injector_rules(ours: str, theirs: str, backbone: config.Backbone) -> list[Rule]:
    """Of one direction of an exchange: `ours` holds one group of digits, that of the stage."""
    injector = f"{theirs}_injector"
    assert backbone.interaction is not None
    if backbone.interaction.attention == "deformable":
        names = {"value": "value_proj", "output": "output_proj"}
    else:
        names = {"query": "wq", "key": "wk", "value": "wv", "output": "proj"}
    attention = [
        (rf"{ours}\.attention\.{name}\.(.+)", rf"{injector}.attn.{official}.\2") for name, official in names.items()
    ]
    return [
        (ours + r"\.projection\.(.+)", rf"{theirs}_proj.\2"),
        (ours + r"\.(ca_gamma|cffn_gamma)", rf"{injector}.\2"),
        (ours + r"\.source_norm\.(.+)", rf"{injector}.feat_norm.\2"),
        (ours + r"\.(query_norm|ffn_norm)\.(.+)", rf"{injector}.\2.\3"),
        *attention,
        (ours + r"\.attention\.(.+)", rf"{injector}.attn.\2"),
        (ours + r"\.ffn\.depthwise\.(.+)", rf"{injector}.ffn.dwconv.dwconv.\2"),
        (ours + r"\.ffn\.(.+)", rf"{injector}.ffn.\2"),
    ]


def _prefixed(replacement: Any) -> Any:
    if isinstance(replacement, str):
        return "backbone." + replacement

    def prefixed(match: re.Match[str]) -> str:
        return "backbone." + replacement(match)

    return prefixed


MASK_RCNN_RULES: list[Rule] = [
    (r"head\.fpn\.laterals\.(\d)\.(.+)", r"neck.lateral_convs.\1.conv.\2"),
    (r"head\.fpn\.outputs\.(\d)\.(.+)", r"neck.fpn_convs.\1.conv.\2"),
    (r"head\.rpn\.conv\.(.+)", r"rpn_head.rpn_conv.\1"),
    (r"head\.rpn\.objectness\.(.+)", r"rpn_head.rpn_cls.\1"),
    (r"head\.rpn\.deltas\.(.+)", r"rpn_head.rpn_reg.\1"),
    (r"head\.box\.fc\.(\d)\.(.+)", r"roi_head.bbox_head.shared_fcs.\1.\2"),
    (r"head\.box\.scores\.(.+)", r"roi_head.bbox_head.fc_cls.\1"),
    (r"head\.box\.deltas\.(.+)", r"roi_head.bbox_head.fc_reg.\1"),
    (r"head\.mask\.convs\.(\d)\.(.+)", r"roi_head.mask_head.convs.\1.conv.\2"),
    (r"head\.mask\.upsample\.(.+)", r"roi_head.mask_head.upsample.\1"),
    (r"head\.mask\.logits\.(.+)", r"roi_head.mask_head.conv_logits.\1"),
]
