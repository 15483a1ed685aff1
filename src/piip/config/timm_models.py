"""What timm knows of its own models: which can be branches, their architecture, their pixel statistics."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

WHAT_WORKS = (
    "timm's ViTs of pre-norm blocks on plain patches (vit_*, deit_*, deit3_*, eva02_*; CLIP, SigLIP, MAE, DINOv2 and "
    "DINOv3 weights among them) and its ConvNeXts (convnext_*, convnextv2_*) work, for example "
    "vit_small_patch14_dinov2, vit_small_patch16_dinov3, deit3_base_patch16_224, convnext_tiny"
)
BRANCHES = ("vit_*", "deit_*", "deit3_*", "eva02_*", "convnext_*", "convnextv2_*")
NEAR = 5
"""names in an error"""
MAP_REDUCTIONS = [4, 8, 16, 32]


def architecture(name: str) -> dict[str, Any]:
    """The `config.Branch` fields of a timm model, read from timm without allocating its weights.

    Raises ValueError for a name that timm does not know, or a model that cannot be a branch.
    """
    return dict(_architecture(name))


def pixel_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the weights of timm's `name` expect, of RGB values in 0..255."""
    architecture(name)  # refuses what is no branch, with the reason
    pretrained = timm.get_pretrained_cfg(name)
    assert pretrained is not None
    return tuple(255 * value for value in pretrained.mean), tuple(255 * value for value in pretrained.std)


def unknown(name: str) -> str:
    """What to say of a name, or of a tag behind its dot, that timm does not know: which ones are near."""
    model, _, tag = name.partition(".")
    if timm.is_model(model):
        tags = [found.partition(".")[2] for found in timm.list_pretrained(f"{model}.*")]
        near = difflib.get_close_matches(tag, tags, n=len(tags) or 1, cutoff=0.0)[:NEAR]
        known = f"its tags: {', '.join(near)}" if near else "it has no weights"
        return f"timm has no weights {tag!r} of {model!r}; {known}"
    branches = [found for pattern in BRANCHES for found in timm.list_models(pattern)]
    near = [name for name in branches if name.startswith(model)] + difflib.get_close_matches(model, branches, n=NEAR)
    if not near:  # perhaps another project's name, which has a word in common with timm's
        words = sorted((word for word in re.split("[_-]", model) if len(word) > 2), key=len, reverse=True)
        sharing = ([name for name in branches if word in name] for word in words)
        near = next((sorted(names, key=len) for names in sharing if names), [])
    near = list(dict.fromkeys(near))[:NEAR]
    return f"timm has no model {model!r}; " + (f"near names: {', '.join(near)}" if near else WHAT_WORKS)


@lru_cache(maxsize=64)
def _architecture(name: str) -> dict[str, Any]:
    if ":" in name:  # timm would fetch these, or read them from the disk, because a config says so
        raise ValueError(f"{name!r:.80} is no name of timm's own models")
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
    except RuntimeError as error:
        raise ValueError(unknown(name)) from error
    if isinstance(model, ConvNeXt) and model.feature_info and _reductions(model) == MAP_REDUCTIONS:
        return _convnext(model)
    if isinstance(model, VisionTransformer | Eva) and _is_plain(model):
        return _vit(model)
    raise ValueError(f"{name!r} ({type(model).__name__}) cannot be a branch: {WHAT_WORKS}")


def _is_plain(vit: VisionTransformer | Eva) -> bool:
    """Pre-norm blocks, square patches cut by one convolution, a square grid of positions or none."""
    grid_is_square = vit.pos_embed is None or len(set(vit.patch_embed.grid_size)) == 1
    return (
        all(type(block) in (Block, EvaBlock) for block in vit.blocks)
        and isinstance(vit.patch_embed, PatchEmbed)
        and len(set(vit.patch_embed.patch_size)) == 1
        and grid_is_square
    )


def _vit(vit: Any) -> dict[str, Any]:
    block: Any = vit.blocks[0]
    return {
        "family": "vit",
        "depth": len(vit.blocks),
        "width": vit.embed_dim,
        "heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc2.in_features / vit.embed_dim,
        "patch": vit.patch_embed.patch_size[0],
        "position_grid": None if vit.pos_embed is None else vit.patch_embed.grid_size[0],
        "position_prefix": 0 if vit.no_embed_class or vit.pos_embed is None else vit.num_prefix_tokens,
        "prefix_tokens": vit.num_prefix_tokens,
        "layer_scale": _layer_scale(block),
        "qkv_bias": _has_bias(block.attn),
    }


def _layer_scale(block: Any) -> float | None:
    value = block.init_values if isinstance(block, EvaBlock) else getattr(block.ls1, "init_values", None)
    return float(value) if value else None


def _has_bias(attention: nn.Module) -> bool:
    return any(name.split(".")[0] != "proj" and name.endswith("bias") for name, _ in attention.named_parameters())


def _reductions(cnn: Any) -> list[int]:
    return [info["reduction"] for info in cnn.feature_info]


def _convnext(cnn: Any) -> dict[str, Any]:
    scaled = cnn.stages[0].blocks[0].gamma is not None
    return {
        "family": "convnext",
        "stages": tuple(
            (len(stage.blocks), info["num_chs"]) for stage, info in zip(cnn.stages, cnn.feature_info, strict=True)
        ),
        "layer_scale": 1e-6 if scaled else None,
        "prefix_tokens": 0,
        "position_grid": None,
    }
