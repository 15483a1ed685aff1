"""Official configs (OpenGVLab/PIIP) as ours.

Here and in `official_keys` is all that knows the official numbering: there branch 1 is the coarsest image with the
largest model, here branch 0 is the finest image with the smallest. Defaults are those of the official classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from piip import config
from piip.config.errors import problems
from piip.data.names.coco import COCO_CLASSES
from piip.weights.official.dino import dino_head, is_dino
from piip.weights.official.upernet import is_segmentor, segmentor_config

Official = Mapping[str, Any]

PYRAMID_TYPES = {"PIIPTwoBranch": 2, "PIIPThreeBranch": 3, "PIIPFourBranch": 4}
SINGLE_TYPES = ("vit_models", "InternViT6B", "BEiT", "ConvNextHFWrapper")
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


# -- backbones -------------------------------------------------------------------------------------------------------


def backbone_config(official: Official, groups: int | None = None) -> config.Backbone:
    """An official `backbone` dictionary as ours; one without a `type` is a classification model's.

    `groups`: number of interactions, for a dictionary that a built model has taken its `interaction_indexes` out of;
    every branch then has that many groups of equal length.
    """
    kind = official.get("type")
    rest = {key: value for key, value in official.items() if key != "type"}
    if kind in SINGLE_TYPES:
        return _single_branch(kind, rest)
    if kind is not None and kind not in PYRAMID_TYPES:
        supported = sorted((*PYRAMID_TYPES, *SINGLE_TYPES))
        raise ValueError(f"official backbone type {kind!r} is not supported; one of {supported}")
    count = PYRAMID_TYPES[kind] if kind else sum(1 for key in rest if re.fullmatch(r"branch\d", key))
    if count < 2:
        raise ValueError("an official backbone has a `type`, or the keys branch1, branch2, ...; this one has neither")
    names = [f"branch{number}" for number in range(count, 0, -1)]
    arguments = zip(names, _branch_arguments(rest, names), strict=True)
    branches = tuple(_named_branch(name, official, groups) for name, official in arguments)
    rest = {key: value for key, value in rest.items() if key not in names}
    maps = _maps(rest, count) if kind else None
    return config.Backbone(branches=branches, interaction=_interaction(rest), maps=maps)


def _branch_arguments(official: Official, names: list[str]) -> list[Official]:
    """The arguments of each branch, finest first, as the official classes really use them.

    The four-branch class builds its finest branch with the arguments of the next coarser one; only `real_size` is its
    own. The released "TSBL" detectors so hold a second ViT-S where their configs and the paper's counts say ViT-T
    (593.2 instead of 571.1 million parameters).
    """
    missing = [name for name in names if name not in official]
    if missing:
        raise ValueError(f"official backbone config without {missing}")
    arguments = [official[name] for name in names]
    if len(names) == 4 and "real_size" in arguments[0]:
        arguments[0] = {**arguments[1], "real_size": arguments[0]["real_size"]}
    return arguments


def _maps(rest: dict[str, Any], count: int) -> config.FeatureMaps:
    three_levels = rest.pop("is_dino", False)
    after = tuple(rest.pop("out_interaction_indexes", ()))
    if rest.pop("with_simple_fpn", True):
        after = ()
    # Of the classes for three-level heads, only the three-branch one builds the stride-4 level that it does not use.
    return config.FeatureMaps(
        strides=(8, 16, 32) if three_levels else (4, 8, 16, 32), merge_after=after, unused_level=count == 3
    )


def _interaction(rest: dict[str, Any]) -> config.Interaction:
    for key in ("pretrained", "cal_flops", "separate_head", "use_cls_head", "num_classes"):
        rest.pop(key, None)  # the last three are of the classification head
    attention = rest.pop("interact_attn_type", "normal")
    if attention not in ("deform", "normal"):
        raise ValueError(f"official interact_attn_type {attention!r}; 'deform' and 'normal' are supported")
    ratio = rest.pop("cffn_ratio", 0.25)
    interaction = config.Interaction(
        attention="deformable" if attention == "deform" else "cross",
        heads=rest.pop("deform_num_heads", 6),
        points=rest.pop("n_points", 4),
        value_ratio=rest.pop("deform_ratio", 1.0),
        projection=rest.pop("interaction_proj", True),
        norm="none" if rest.pop("norm_layer", None) == "none" else "layernorm",
        ffn_ratio=ratio if rest.pop("with_cffn", False) else None,
        drop_path=rest.pop("interaction_drop_path_rate", 0.3),
    )
    _refuse_rest("backbone", rest)
    return interaction


def _single_branch(kind: str, rest: dict[str, Any]) -> config.Backbone:
    if kind == "ConvNextHFWrapper":
        return _single_convnext(rest)
    depth = rest["depth"]
    last = rest.pop("out_indices", [depth - 1])[-1]
    if last != depth - 1:
        raise ValueError(f"official single branch whose last map is that of block {last}, not {depth - 1}")
    size = rest.get("img_size", 1024)
    rest = {"real_size": size, "interaction_indexes": [[0, last]], **rest}
    branch = {"vit_models": _vit, "InternViT6B": _intern_class, "BEiT": _beit}[kind](rest)
    return config.Backbone(branches=(branch,), maps=config.FeatureMaps(norm="layernorm"))


def _single_convnext(rest: dict[str, Any]) -> config.Backbone:
    if rest.pop("with_simple_fpn", False) or not rest.pop("single_branch", False):
        raise ValueError("official ConvNeXt baselines are supported with single_branch=True and with_simple_fpn=False")
    groups, start = [], 0
    for index, (blocks, _) in enumerate(_convnext_stages(rest)):  # one group per stage, its downsampling layer included
        end = start + blocks + (index > 0)
        groups.append([start, end - 1])
        start = end
    branch = _convnext({**rest, "interaction_indexes": groups})
    return config.Backbone(branches=(branch,), maps=config.FeatureMaps(merge_after=(0, 1, 2)))


# -- branches: one function per official class -----------------------------------------------------------------------


def _named_branch(name: str, official: Official, groups: int | None) -> config.Branch:
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
        return _intern_class if official.get("model_type") == "augreg" else _vit
    pretrained = str(official.get("pretrained"))
    classes = {"deit": _vit, "beit": _beit, "perceiver": _uni_perceiver, "convnext": _convnext}
    return next((function for word, function in classes.items() if word in pretrained), _intern_class)


def _vit(rest: dict[str, Any]) -> config.Branch:
    """`vit_models`: DeiT and DeiT III."""
    fused = rest.pop("Mlp_block", None) == "fused_mlp"
    return _finish(
        rest,
        layer_scale=rest.pop("init_scale", 1e-4),
        activation="gelu_tanh" if fused else "gelu",
        qkv_bias=rest.pop("qkv_bias", False),
        prefix_tokens=int(rest.pop("use_cls_token", False)),
    )


def _intern_class(rest: dict[str, Any]) -> config.Branch:
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


def _beit(rest: dict[str, Any]) -> config.Branch:
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


def _convnext(rest: dict[str, Any]) -> config.Branch:
    """`ConvNextHFWrapper`: the architecture is in the Hugging Face name of the weights."""
    branch = config.Branch.model_validate(
        {
            "size": rest.pop("real_size"),
            "family": "convnext",
            "stages": _convnext_stages(rest),
            "groups": _groups(rest),
            "drop_path": rest.pop("drop_path_rate", None) or 0.0,
        }
    )
    ratios, strides = rest.pop("downsample_ratios", None), branch.group_strides
    if ratios and tuple(ratios[last] for _, last in branch.groups) != strides:
        raise ValueError(f"official ConvNeXt branch with downsample_ratios {ratios}, but its groups end at {strides}")
    rest.pop("pretrained")
    _refuse_rest("branch", rest)
    return branch


def _convnext_stages(rest: Official) -> tuple[tuple[int, int], ...]:
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
    _refuse_rest("branch", {key: value for key, value in rest.items() if key not in IGNORED_KEYS})
    return branch


def _groups(rest: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    return tuple((group[0], group[-1]) for group in rest.pop("interaction_indexes"))


def _windows(use: list[bool] | None, sizes: list[int] | None, depth: int) -> tuple[int | None, ...]:
    if use is None or sizes is None:
        return (None,) * depth
    return tuple(size if windowed else None for windowed, size in zip(use, sizes, strict=True))


def _refuse_rest(what: str, rest: Mapping[str, Any]) -> None:
    if rest:
        raise ValueError(f"unknown keys in an official {what} config: {sorted(rest)}")


# -- models ----------------------------------------------------------------------------------------------------------


def model_config(official: Official, groups: int | None = None) -> config.Model:
    """An official Mask R-CNN, DINO or UperNet config as ours; for `groups` see `backbone_config`.

    `official` is a whole resolved config, from which classes and preprocessing are read, or its `model` dictionary
    alone: then the classes are COCO's and the preprocessing that of the Mask R-CNN recipes.
    """
    model = official.get("model", official)
    if model.get("type") != "MaskRCNN" and not is_dino(model) and not is_segmentor(model):
        raise ValueError(f"official model type {model.get('type')!r} is not supported here; MaskRCNN, DINO and "
                         "EncoderDecoder are")  # fmt: skip
    backbone = backbone_config(model["backbone"], groups)
    if is_segmentor(model):
        return segmentor_config(official, backbone)
    box_head = model["bbox_head"] if is_dino(model) else model["roi_head"]["bbox_head"]
    classes = _classes(box_head["num_classes"])
    return config.Model(
        name=str(official.get("name", "official")),
        backbone=backbone,
        head=dino_head(model) if is_dino(model) else _mask_rcnn_config(model),
        classes=classes,
        category_ids=None if classes != tuple(COCO_CLASSES.values()) else tuple(COCO_CLASSES),
        preprocess=_preprocess(official, backbone),
    )


def _mask_rcnn_config(model: Official) -> config.MaskRCNN:
    rpn, roi = model["rpn_head"], model["roi_head"]
    test = model["test_cfg"]
    return config.MaskRCNN(
        masks="mask_head" in roi,
        channels=model["neck"]["out_channels"],
        fc_channels=roi["bbox_head"]["fc_out_channels"],
        anchor_scale=rpn["anchor_generator"]["scales"][0],
        anchor_ratios=tuple(rpn["anchor_generator"]["ratios"]),
        mask_convs=roi.get("mask_head", {}).get("num_convs", 4),
        proposals=test["rpn"]["max_per_img"],
        proposals_per_level_test=test["rpn"]["nms_pre"],
        score_threshold=test["rcnn"]["score_thr"],
        nms_threshold=test["rcnn"]["nms"]["iou_threshold"],
        detections=test["rcnn"]["max_per_img"],
    )


def _classes(count: int) -> tuple[str, ...]:
    return tuple(COCO_CLASSES.values()) if count == len(COCO_CLASSES) else tuple(f"class {i}" for i in range(count))


def _preprocess(official: Official, backbone: config.Backbone) -> config.Preprocess:
    pipeline = official.get("test_pipeline")
    if pipeline is None:
        long_side = backbone.branches[0].size
        return config.Preprocess(long_side=long_side, short_side=int(long_side * 0.6 + 0.5), pad_multiple=224)
    augmentation = next(step for step in pipeline if step["type"] == "MultiScaleFlipAug")
    steps = {step["type"]: step for step in augmentation["transforms"]}
    long_side, short_side = augmentation["img_scale"]
    return config.Preprocess(
        long_side=long_side,
        short_side=short_side,
        pad_multiple=steps["Pad"]["size_divisor"] if "Pad" in steps else 1,
        mean=tuple(steps["Normalize"]["mean"]),
        std=tuple(steps["Normalize"]["std"]),
    )
