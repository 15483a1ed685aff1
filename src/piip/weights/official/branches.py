"""Official configs of a branch as ours: one function per official class. Defaults are those of the official classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from piip import config
from piip.config.errors import problems

Official = Mapping[str, Any]

IGNORED_KEYS = (
    "pretrained",  # where the branch's weights came from; they are in the checkpoint
    "pretrain_patch_size",
    "use_flash_attn",  # the same numbers by another kernel
    "layerscale_force_fp32",
    "output_dtype",
    "cal_flops",
    "with_fpn",
    "use_simple_fpn",
    "model_type",
)
CONVNEXTS = {
    "tiny": ((3, 96), (3, 192), (9, 384), (3, 768)),
    "small": ((3, 96), (3, 192), (27, 384), (3, 768)),
    "base": ((3, 128), (3, 256), (27, 512), (3, 1024)),
    "large": ((3, 192), (3, 384), (27, 768), (3, 1536)),
    "xlarge": ((3, 256), (3, 512), (27, 1024), (3, 2048)),
}


def named_branch(name: str, official: Official, groups: int | None) -> config.Branch:
    """One branch; ValueError begins with its official name."""
    try:
        return _branch(official, groups)
    except ValidationError as error:
        raise ValueError(f"{name}: {problems(error)}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _branch(official: Official, groups: int | None) -> config.Branch:
    rest = dict(official)
    if "interaction_indexes" not in rest:
        if groups is None or rest["depth"] % groups:
            raise ValueError("official branch config without `interaction_indexes`: put them back, one [first, last] "
                             "block per interaction")  # fmt: skip
        rest["interaction_indexes"] = config.even_groups(rest["depth"], groups)
    return _official_class(official)(rest)


def _official_class(official: Official) -> Callable[[dict[str, Any]], config.Branch]:
    """The official code, too, chooses a branch's class by the file name of its pretrained weights."""
    if "model_type" in official or "use_cls_token" in official:  # classification
        return intern_vit if official.get("model_type") == "augreg" else vit
    pretrained = str(official.get("pretrained"))
    classes = {"deit": vit, "beit": beit, "perceiver": _uni_perceiver, "convnext": convnext}
    return next((function for word, function in classes.items() if word in pretrained), intern_vit)


def vit(rest: dict[str, Any]) -> config.Branch:
    """`vit_models`: DeiT and DeiT III."""
    fused = rest.pop("Mlp_block", None) == "fused_mlp"
    return _finish(
        rest,
        layer_scale=rest.pop("init_scale", 1e-4),
        activation="gelu_tanh" if fused else "gelu",
        qkv_bias=rest.pop("qkv_bias", False),
        prefix_tokens=int(rest.pop("use_cls_token", False)),
    )


def intern_vit(rest: dict[str, Any]) -> config.Branch:
    """`InternViT6B`: InternViT, and with other settings the plain ViTs of AugReg, MAE and DINOv2."""
    classification = "model_type" in rest
    wide_norm = rest.pop("qk_normalization", not classification)
    rms_norm = rest.pop("norm_layer_type", "LayerNorm" if classification else "RMSNorm") == "RMSNorm"
    if wide_norm != rms_norm:
        raise ValueError(f"official branch with qk_normalization={wide_norm} and norm_layer_type="
                         f"{'RMSNorm' if rms_norm else 'LayerNorm'}: only both of InternViT's norms or none are "
                         "supported")  # fmt: skip
    prefix_tokens = int(rest.pop("use_cls_token", classification))
    return _finish(
        rest,
        family="intern_vit" if wide_norm else "vit",
        layer_scale=rest.pop("init_values", None if classification else 0.1),
        activation="gelu_tanh" if rest.pop("mlp_type", None) == "fused_mlp" else "gelu",
        qkv_bias=rest.pop("qkv_bias", False),
        position_prefix=1,
        prefix_tokens=prefix_tokens,
        prefix_positions=False,
        drop_path_schedule="constant" if classification else "linear",
    )


def beit(rest: dict[str, Any]) -> config.Branch:
    """`BEiT`, with a relative position bias per window and no other positions."""
    for key, supported in (("use_abs_pos_emb", False), ("use_rel_pos_bias", True), ("use_shared_rel_pos_bias", False)):
        if rest.pop(key, supported) != supported:
            raise ValueError(f"official BEiT branches with {key}={not supported} are not supported")
    return _finish(
        rest,
        family="beit",
        layer_scale=rest.pop("init_values", None),
        qkv_bias=rest.pop("qkv_bias", False),
        drop_path_schedule="linear",
    )


def _uni_perceiver(rest: dict[str, Any]) -> config.Branch:
    """`UnifiedBertEncoder`."""
    return _finish(rest, family="uni_perceiver", drop_path_schedule="linear")


def convnext(rest: dict[str, Any]) -> config.Branch:
    """`ConvNextHFWrapper`: the architecture is in the Hugging Face name of the weights."""
    branch = config.Branch.model_validate(
        {
            "size": rest.pop("real_size"),
            "family": "convnext",
            "stages": convnext_stages(rest),
            "groups": _groups(rest),
            "drop_path": rest.pop("drop_path_rate", None) or 0.0,
        }
    )
    ratios, strides = rest.pop("downsample_ratios", None), branch.group_strides
    if ratios and tuple(ratios[last] for _, last in branch.groups) != strides:
        raise ValueError(f"official ConvNeXt branch with downsample_ratios {ratios}, but its groups end at {strides}")
    rest.pop("pretrained")
    refuse_rest("branch", rest)
    return branch


def convnext_stages(rest: Official) -> tuple[tuple[int, int], ...]:
    """(blocks, width) of each stage."""
    match = re.search(r"convnext-(\w+)-", str(rest.get("pretrained")))
    if match is None or match[1] not in CONVNEXTS:
        raise ValueError(f"official ConvNeXt branch {rest.get('pretrained')!r}; sizes {sorted(CONVNEXTS)} are known")
    return CONVNEXTS[match[1]]


def _finish(rest: dict[str, Any], **fields: Any) -> config.Branch:
    """The fields that all official ViT classes share."""
    depth, patch = rest.pop("depth", 12), rest.pop("patch_size", 16)
    image = rest.pop("img_size", None)
    pretrained_size = rest.pop("pretrain_img_size", 224)
    position_grid = (image or pretrained_size) // patch
    size = rest.pop("real_size", image)
    if size is None:
        raise ValueError("official branch config without `real_size` or `img_size`")
    branch = config.Branch(
        size=size,
        depth=depth,
        width=rest.pop("embed_dim"),
        heads=rest.pop("num_heads"),
        mlp_ratio=rest.pop("mlp_ratio", 4.0),
        patch=patch,
        groups=_groups(rest),
        windows=_windows(rest.pop("window_attn", None), rest.pop("window_size", None), depth),
        position_grid=None if fields.get("family") == "beit" else position_grid,
        drop_path=rest.pop("drop_path_rate", 0.0),
        checkpointing=rest.pop("with_cp", False),
        **fields,
    )
    rest.pop("drop_rate", None)  # dropout before the classifier
    refuse_rest("branch", {key: value for key, value in rest.items() if key not in IGNORED_KEYS})
    return branch


def _groups(rest: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    return tuple((group[0], group[-1]) for group in rest.pop("interaction_indexes"))


def _windows(use: list[bool] | None, sizes: list[int] | None, depth: int) -> tuple[int | None, ...]:
    if use is None or sizes is None:
        return (None,) * depth
    return tuple(size if windowed else None for windowed, size in zip(use, sizes, strict=True))


def refuse_rest(what: str, rest: Mapping[str, Any]) -> None:
    """ValueError for keys that nothing has read."""
    if rest:
        raise ValueError(f"unknown keys in an official {what} config: {sorted(rest)}")
