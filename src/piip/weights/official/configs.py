"""Official configs (OpenGVLab/PIIP) as ours.

Here, in `branches` and in `keys` is all that knows the official numbering: there branch 1 is the coarsest image with
the largest model, here branch 0 is the finest image with the smallest. Defaults are those of the official classes.
"""

from __future__ import annotations

import re
from typing import Any

from piip import config
from piip.data.names.coco import COCO_CLASSES
from piip.weights.official.branches import (
    Official,
    beit,
    convnext,
    convnext_stages,
    intern_vit,
    named_branch,
    refuse_rest,
    vit,
)
from piip.weights.official.dino import dino_head, is_dino
from piip.weights.official.upernet import is_segmentor, segmentor_config

PYRAMID_TYPES = {"PIIPTwoBranch": 2, "PIIPThreeBranch": 3, "PIIPFourBranch": 4}
SINGLE_TYPES = ("vit_models", "InternViT6B", "BEiT", "ConvNextHFWrapper")


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
    branches = tuple(named_branch(name, official, groups) for name, official in arguments)
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
    refuse_rest("backbone", rest)
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
    branch = {"vit_models": vit, "InternViT6B": intern_vit, "BEiT": beit}[kind](rest)
    return config.Backbone(branches=(branch,), maps=config.FeatureMaps(norm="layernorm"))


def _single_convnext(rest: dict[str, Any]) -> config.Backbone:
    if rest.pop("with_simple_fpn", False) or not rest.pop("single_branch", False):
        raise ValueError("official ConvNeXt baselines are supported with single_branch=True and with_simple_fpn=False")
    groups, start = [], 0
    for index, (blocks, _) in enumerate(convnext_stages(rest)):  # one group per stage, its downsampling layer included
        end = start + blocks + (index > 0)
        groups.append([start, end - 1])
        start = end
    branch = convnext({**rest, "interaction_indexes": groups})
    return config.Backbone(branches=(branch,), maps=config.FeatureMaps(merge_after=(0, 1, 2)))


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
        class_agnostic=bool(test["rcnn"]["nms"].get("class_agnostic", False)),
        detections=test["rcnn"]["max_per_img"],
    )


def _classes(count: int) -> tuple[str, ...]:
    return tuple(COCO_CLASSES.values()) if count == len(COCO_CLASSES) else tuple(f"class {i}" for i in range(count))


def _preprocess(official: Official, backbone: config.Backbone) -> config.Preprocess:
    pipeline = _test_pipeline(official)
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


def _test_pipeline(official: Official) -> list[dict[str, Any]] | None:
    """What the test data really went through: a config's variable `test_pipeline` may be used nowhere in it."""
    test = official.get("data", {}).get("test", {})
    return test.get("pipeline", official.get("test_pipeline"))
