"""Official weights of PIIP-LLaVA's vision encoder (OpenGVLab/PIIP, `llava/`), in and out, strictly.

Its branches are Hugging Face's CLIP, whose queries, keys and values are layers of their own, and timm's ConvNeXt; its
interactions have the other models' names but for their gammas, which are called weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from piip import config
from piip.encoder import PIIPEncoder
from piip.weights.keymap import KeyMismatch, Rule, convert, key_map
from piip.weights.official.keys import injector_rules

TOWER, PROJECTOR = "vision_tower.vision_tower.", "mm_projector."
LANGUAGE = ("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")
"""what a whole LLaVA checkpoint holds beside the encoder"""
JOINED = "self_attn.qkv_proj."
PARTS = ("q_proj", "k_proj", "v_proj")
SEPARATE = re.compile(r"(.+\.self_attn\.)([qkv]_proj)\.(weight|bias)")
POSITION_IDS = ".embeddings.position_ids"
GAMMA = re.compile(r"(.+\.convnext_model\.stages\.\d\.blocks\.\d+)\.weight")
"""ConvNeXt's gamma where the official code was run with an older `transformers`, which rewrites names with "gamma" """


def load(encoder: config.Encoder, state_dict: Mapping[str, Tensor]) -> PIIPEncoder:
    """The encoder with official weights, in eval mode.

    Args:
        encoder: of the zoo (`zoo.encoders.encoder`), or your own. The sides of CLIP's stored position grids are taken
            from the weights.
        state_dict: of the encoder or of a whole LLaVA model, whose language model is left out. Every other key must
            be used and every parameter filled.

    Raises KeyMismatch (a ValueError) that lists what does not fit.
    """
    theirs = dict(_joined(state_dict))
    with torch.device("meta"):
        module = PIIPEncoder(_with_grids(encoder, theirs))
    shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
    module.load_state_dict(convert(theirs, _names(module), shapes), strict=True, assign=True)
    return module.eval()


def to_official(module: PIIPEncoder) -> dict[str, Tensor]:
    """The weights under the official names, those of a LLaVA model's encoder: undoes `load`."""
    state, names = module.state_dict(), _names(module)
    official: dict[str, Tensor] = {}
    for ours, name in names.items():
        tensor = state[ours]
        if JOINED in name:
            for part, piece in zip(PARTS, tensor.chunk(3), strict=True):
                official[name.replace("qkv_proj", part)] = piece
        elif name.endswith("class_embedding"):
            official[name] = tensor.flatten()
        elif name.endswith("position_embedding.weight"):
            official[name] = tensor[0]
        else:
            official[name] = tensor
    return official


def _joined(state_dict: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The encoder's tensors as ours are shaped, by official names: queries, keys and values in one."""
    state = {name.removeprefix("model."): value for name, value in state_dict.items() if not name.startswith(LANGUAGE)}
    for name, tensor in state.items():
        if match := SEPARATE.fullmatch(name):
            if match[2] == PARTS[0]:
                parts = [f"{match[1]}{part}.{match[3]}" for part in PARTS]
                if missing := [part for part in parts if part not in state]:
                    raise KeyMismatch(f"the weights do not fit this model; missing: {', '.join(missing)}")
                yield f"{match[1]}qkv_proj.{match[3]}", torch.cat([state[part] for part in parts])
        elif name.endswith(POSITION_IDS):
            if not torch.equal(tensor.flatten().long(), torch.arange(tensor.numel())):
                raise KeyMismatch(f"{name} is not 0, 1, 2, ...: the weights are of another model")
        elif name.endswith(".class_embedding"):
            yield name, tensor.reshape(1, 1, -1)
        elif name.endswith(".position_embedding.weight"):
            yield name, tensor[None]
        elif match := GAMMA.fullmatch(name):
            yield f"{match[1]}.gamma", tensor
        else:
            yield name, tensor


def _with_grids(encoder: config.Encoder, theirs: Mapping[str, Tensor]) -> config.Encoder:
    branches = list(encoder.backbone.branches)
    for index, branch in enumerate(branches):
        name = f"{_branch(encoder, index)}clip_model.embeddings.position_embedding.weight"
        if branch.family == "clip" and name in theirs:
            side = round(max(0, theirs[name].shape[1] - 1) ** 0.5)
            branches[index] = branch.model_copy(update={"position_grid": max(1, side)})
    backbone = encoder.backbone.model_copy(update={"branches": tuple(branches)})
    return encoder.model_copy(update={"backbone": backbone})


def _branch(encoder: config.Encoder, index: int) -> str:
    return f"{TOWER}branch{len(encoder.backbone.branches) - index}."  # official branch 1 is our last one


def _names(module: PIIPEncoder) -> dict[str, str]:
    """Every key of ours with its official name (queries, keys and values joined)."""
    encoder = module.config
    count = len(encoder.backbone.branches)
    rules: list[Rule] = []
    for index, branch in enumerate(encoder.backbone.branches):
        ours, theirs = rf"backbone\.branches\.{index}\.", _branch(encoder, index)
        rules += _clip_rules(ours, theirs) if branch.family == "clip" else _convnext_rules(ours, theirs)
        rules += [
            (rf"projector\.branches\.{index}\.{layer}\.(.+)", rf"{PROJECTOR}branch{count - index}.{number}.\1")
            for layer, number in (("fc1", 1), ("norm", 3), ("fc2", 6))  # layers without weights stand between them
        ]
    for index in range(count - 1):
        pair = f"interaction_units_{count - index - 1}{count - index}"
        for direction, name in (("to_coarse", "branch2to1"), ("to_fine", "branch1to2")):
            ours = rf"backbone\.interactions\.(\d+)\.units\.{index}\.{direction}"
            theirs = rf"{TOWER}interactions.\1.{pair}.{name}"
            rules.append((ours + r"\.(ca|cffn)_gamma", rf"{theirs}_injector.\2_weight"))
            rules += injector_rules(ours, theirs, encoder.backbone)
    return key_map(module.state_dict().keys(), rules)


def _clip_rules(ours: str, theirs: str) -> list[Rule]:
    vit, model = ours + r"vit\.", theirs + "clip_model."
    block, layer = vit + r"blocks\.(\d+)\.", model + r"encoder.layers.\1."
    return [
        (vit + "cls_token", model + "embeddings.class_embedding"),
        (vit + "pos_embed", model + "embeddings.position_embedding.weight"),
        (vit + r"patch_embed\.proj\.(.+)", model + r"embeddings.patch_embedding.\1"),
        (vit + r"norm_pre\.(.+)", model + r"pre_layrnorm.\1"),
        (vit + r"norm\.(.+)", model + r"post_layernorm.\1"),
        (block + r"attn\.qkv\.(.+)", layer + JOINED + r"\2"),
        (block + r"attn\.proj\.(.+)", layer + r"self_attn.out_proj.\2"),
        (block + r"norm(\d)\.(.+)", layer + r"layer_norm\2.\3"),
        (block + r"(mlp\.fc\d\..+)", layer + r"\2"),
    ]


def _convnext_rules(ours: str, theirs: str) -> list[Rule]:
    return [(ours + r"convnext\.(.+)", theirs + r"convnext_model.\1")]
