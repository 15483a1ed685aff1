"""Inside a branch: LayerScale moves into the layer before it, the norms' weights into the layers after them."""

from __future__ import annotations

from typing import Any

from torch import nn

from piip.inference.folding.affine import absorb_affine, scale_outputs


def fold_branch(branch: Any) -> None:
    """Every block of a ViT or ConvNeXt branch."""
    if branch.config.family == "convnext":
        _fold_convnext(branch.convnext)
        return
    for block, window in zip(branch.vit.blocks, branch.config.windows, strict=True):
        # Where windows do not fit the grid, their padding is zeros *after* the norm, so that padded keys and values
        # are the biases of qkv: these must stay what they are.
        if window is None:
            absorb_affine(block.norm1, _attention_inputs(block.attn))
        absorb_affine(block.norm2, _mlp_inputs(block.mlp))
        _fold_scale(block, 1, block.attn.proj)
        _fold_scale(block, 2, block.mlp.fc2)


def _attention_inputs(attention: Any) -> list[nn.Module]:
    """All layers that read the attention's input, or none where biases are kept apart from the layers."""
    if getattr(attention, "q_bias", None) is not None:
        return []
    names = ("qkv", "q_proj", "k_proj", "v_proj", "gate")
    return [layer for name in names if (layer := getattr(attention, name, None)) is not None]


def _mlp_inputs(mlp: Any) -> list[nn.Module]:
    names = ("fc1", "fc1_g", "fc1_x")
    return [layer for name in names if (layer := getattr(mlp, name, None)) is not None]


def _fold_scale(block: Any, part: int, layer: nn.Module) -> None:
    """LayerScale, for which timm's two kinds of block have different names."""
    gamma = getattr(block, f"gamma_{part}", None)
    if gamma is not None:
        scale_outputs(layer, gamma)
        setattr(block, f"gamma_{part}", None)
    layer_scale = getattr(block, f"ls{part}", None)
    if getattr(layer_scale, "gamma", None) is not None:
        scale_outputs(layer, layer_scale.gamma)  # type: ignore[union-attr]
        setattr(block, f"ls{part}", nn.Identity())


def _fold_convnext(convnext: Any) -> None:
    for stage in convnext.stages:
        if isinstance(stage.downsample, nn.Sequential):
            norm, conv = stage.downsample
            absorb_affine(norm, [conv])
        for block in stage.blocks:
            absorb_affine(block.norm, [block.mlp.fc1])
            if block.gamma is not None:
                scale_outputs(block.mlp.fc2, block.gamma)
                block.gamma = None
