"""Official configs and weights in and out: the backbones' outputs, their sizes, and how strict the conversion is."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import shared_folder
from tests.weights.golden import Golden
from torch import Tensor

from piip import config
from piip.backbone import PIIPBackbone
from piip.weights import opengvlab
from piip.weights.keymap import KeyMismatch

CHEAP = ("det_internvit_mini", "det_h6b_mini", "det_vit_b", "det_cnx_tsb")
COSTLY = (
    "det_cnxT_vitS_vitB",
    "det_vitT_cnxS_cnxB",
    "det_tsb_deit",
    "det_tsbl_deit",
    "det_sbl_augreg",
    "det_sbl_augreg_speedup",
    "det_sbl_beit",
    "det_sbl_dino_backbone",
    "det_sbl_dinov2",
    "det_sbl_mae",
    "det_sbl_uniperceiver",
)
BACKBONES = [*CHEAP, *(pytest.param(name, marks=pytest.mark.slow) for name in COSTLY)]


# -- against the official code ---------------------------------------------------------------------------------------


def test_every_backbone_golden_is_tested(goldens: Path) -> None:
    assert sorted(path.stem for path in goldens.glob("det_*.json")) == sorted((*CHEAP, *COSTLY))


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_equals_the_official_one(goldens: Path, name: str) -> None:
    golden = Golden(goldens, name)
    weights = golden.state_dict()
    backbone = opengvlab.load(golden.spec["backbone"], weights)
    with torch.no_grad():
        maps = backbone(golden.image())
    assert {f"out{i}.sample" for i in range(len(maps))} == {key for key in golden.expected if key.endswith("sample")}
    for index, level in enumerate(maps):
        golden.assert_close(f"out{index}", level)
    assert_converts_back(backbone, weights, golden.spec["state_dict"])


@pytest.mark.parametrize("name", ["upernet_h6b_mini", "upernet_internvit_mini"])
def test_segmentation_backbone_equals_the_official_one(goldens: Path, name: str) -> None:
    golden = Golden(goldens, name)
    prefix = "backbone."
    weights = {key.removeprefix(prefix): value for key, value in golden.state_dict().items() if key.startswith(prefix)}
    backbone = opengvlab.load(golden.spec["model"]["backbone"], weights)
    with torch.no_grad():
        maps = backbone(golden.image()[..., :512, :512])
    for index, level in enumerate(maps):
        golden.assert_close(f"feat{index}", level)
    spec = golden.spec["state_dict"]
    assert_converts_back(
        backbone, weights, {key.removeprefix(prefix): spec[key] for key in spec if key.startswith(prefix)}
    )


def assert_converts_back(module: torch.nn.Module, weights: dict[str, Tensor], spec: dict[str, Any]) -> None:
    """`to_official` gives every key of an official file, and each loaded tensor to the bit."""
    back = opengvlab.to_official(module)
    assert sorted(back) == sorted(spec)
    for key, (shape, dtype) in spec.items():
        assert (list(back[key].shape), str(back[key].dtype)) == (shape, f"torch.{dtype}")
        if key in weights:
            assert torch.equal(back[key], weights[key]), key


# -- every released config -------------------------------------------------------------------------------------------


def official_configs() -> list[str]:
    try:
        return sorted(path.stem for path in shared_folder("reference", "configs").glob("*/*.json"))
    except pytest.skip.Exception:
        return []


@lru_cache
def counts() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((shared_folder("reference") / "counts.json").read_text())
    return loaded


# One of each kind; the others differ in sizes and take a second each.
QUICK = (
    "dino_4scale_internvit_h6b_1024_768_fpn_1x_coco_bs32_ms",
    "mask_rcnn_augreg_sbl_1568_1120_672_fpn_1x_coco_bs16_speedup",
    "mask_rcnn_beit_sbl_1568_1120_672_fpn_1x_coco_bs16",
    "mask_rcnn_convnext-base_1024_regular-fpn",
    "mask_rcnn_convnext-tsb_1024_672_448_regular-fpn",
    "mask_rcnn_deit_tsbl_1344_896_672_448_fpn_1x_coco_bs16",
    "mask_rcnn_internvit_6b_fpn_1x_coco_bs16_ms",
    "mask_rcnn_internvit_lh6b_1536_1024_512_fpn_1x_coco_bs32_ms",
    "mask_rcnn_uniperceiver_sbl_1568_1120_672_fpn_1x_coco_bs16",
    "mask_rcnn_vit-t_vit-s_convnext-b_1024_672_448_regular-fpn",
    "piip_3branch_tsb_368-192-128_cls_token_deit1",
    "upernet_internvit_h6b_192_512_80k_ade20k_bs16_lr4e-5",
)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in official_configs()]
)
def test_every_official_backbone_is_built_with_its_counted_parameters(name: str) -> None:
    (path,) = shared_folder("reference", "configs").glob(f"*/{name}.json")
    official = json.loads(path.read_text())
    official = official.get("model", official)["backbone"]
    backbone = opengvlab.backbone_config(official)
    assert config.Backbone.model_validate_json(backbone.model_dump_json()) == backbone
    with torch.device("meta"):
        module = PIIPBackbone(backbone)
    counted = counts().get(name, {}).get("counted_full_backbone")
    if counted is not None:
        assert sum(parameter.numel() for parameter in module.parameters()) == counted["params"]
    names = opengvlab.official_keys(module)
    assert len(set(names.values())) == len(module.state_dict())


@pytest.mark.parametrize("name", [name for name in official_configs() if name.startswith("mask_rcnn")])
def test_map_widths_are_what_the_official_neck_reads(name: str) -> None:
    official = json.loads((shared_folder("reference", "configs", "mmdetection") / f"{name}.json").read_text())
    backbone = opengvlab.backbone_config(official["model"]["backbone"])
    assert list(backbone.map_widths) == official["model"]["neck"]["in_channels"]
    assert backbone.map_strides == (4, 8, 16, 32)


# -- strictness, on small official configs ---------------------------------------------------------------------------

COMMON = {"n_points": 4, "deform_num_heads": 4, "deform_ratio": 0.5, "interact_attn_type": "deform", "with_cffn": True}
VIT = {"depth": 4, "num_heads": 2, "mlp_ratio": 4}
WINDOWS = {"window_attn": [True] * 4, "window_size": [3] * 4}
BRANCHES: dict[str, dict[str, Any]] = {
    "deit": {**VIT, **WINDOWS, "qkv_bias": True, "init_scale": 1.0, "pretrained": "deit_3_small_224_21k.pth"},
    "beit": {
        **VIT,
        **WINDOWS,
        "qkv_bias": True,
        "use_abs_pos_emb": False,
        "use_rel_pos_bias": True,
        "init_values": 1e-6,
        "pretrained": "beitv2_base_patch16_224_pt1k_ft21k.pth",
    },
    "uni_perceiver": {**VIT, "pretrained": "uni-perceiver-base-L12-H768-224size-torch-pretrained_converted.pth"},
    "internvit": {**VIT, "qkv_bias": False, "init_values": 0.1, "pretrained": "intern_vit_6b_224px.pth"},
    "mae": {
        **VIT,
        "qkv_bias": True,
        "init_values": 1.0,
        "qk_normalization": False,
        "norm_layer_type": "LayerNorm",
        "mlp_type": "fused_mlp",
        "pretrained": "mae_pretrain_vit_huge.pth",
    },
}


TWO_GROUPS, FOUR_GROUPS = [[0, 1], [2, 3]], [[0, 0], [1, 1], [2, 2], [3, 3]]


def branch(kind: str, size: int, width: int) -> dict[str, Any]:
    return {**BRANCHES[kind], "real_size": size, "embed_dim": width, "pretrain_img_size": 64}


def pyramid(*kinds: str, groups: list[list[int]] = TWO_GROUPS, **more: Any) -> dict[str, Any]:
    """An official pyramid of branches, coarsest first."""
    types = {2: "PIIPTwoBranch", 3: "PIIPThreeBranch", 4: "PIIPFourBranch"}
    branches = {
        f"branch{i + 1}": branch(kind, 64 + 16 * i, 64 if i == 0 else 32) | {"interaction_indexes": groups}
        for i, kind in enumerate(kinds)
    }
    return {"type": types[len(kinds)], **COMMON, **branches, **more}


OFFICIAL_BRANCH = {kind: branch(kind, 64, 64) | {"interaction_indexes": TWO_GROUPS} for kind in BRANCHES}
OFFICIAL: dict[str, dict[str, Any]] = {
    "deit": pyramid("deit", "deit", "deit"),
    "beit": pyramid("beit", "deit"),
    "uni_perceiver": pyramid("uni_perceiver", "deit"),
    "internvit": pyramid("internvit", "mae", interaction_proj=False, norm_layer="none"),
    "four": pyramid("deit", "deit", "deit", "deit"),
    "three levels": pyramid("deit", "deit", "deit", is_dino=True),
    "three levels, two branches": pyramid("deit", "deit", is_dino=True),
    "cross attention, no ffn": pyramid("deit", "deit", interact_attn_type="normal", with_cffn=False),
    "regular pyramid": pyramid(
        "deit", "deit", "deit", groups=FOUR_GROUPS, with_simple_fpn=False, out_interaction_indexes=[0, 1, 2]
    ),
    "single": {
        "type": "InternViT6B",
        **branch("internvit", 64, 32),
        "out_indices": [3],
        "with_fpn": True,
    },
    "single convnext": {
        "type": "ConvNextHFWrapper",
        "real_size": 64,
        "with_simple_fpn": False,
        "single_branch": True,
        "pretrained": "facebook/convnext-tiny-224",
    },
}


@pytest.mark.parametrize("kind", OFFICIAL)
def test_round_trip_is_exact_to_the_bit(kind: str) -> None:
    first = opengvlab.build(OFFICIAL[kind])
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.normal_()
    weights = opengvlab.to_official(first)
    second = opengvlab.load(OFFICIAL[kind], weights)
    assert not second.training
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    back = opengvlab.to_official(second)
    assert sorted(back) == sorted(weights)
    assert all(torch.equal(back[key], value) for key, value in weights.items())
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        for one, other in zip(first.eval()(images), second(images), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", OFFICIAL)
def test_a_missing_an_unknown_and_a_misshapen_weight_are_named(kind: str) -> None:
    weights = opengvlab.to_official(opengvlab.build(OFFICIAL[kind]))
    floating = [key for key, value in weights.items() if value.is_floating_point()]
    key = floating[len(floating) // 2]
    named = key.replace(".", "[.]")
    with pytest.raises(KeyMismatch, match=f"1 missing: {named}$"):
        opengvlab.load(OFFICIAL[kind], {name: value for name, value in weights.items() if name != key})
    with pytest.raises(KeyMismatch, match=f"1 unknown: {named}_extra$"):
        opengvlab.load(OFFICIAL[kind], weights | {f"{key}_extra": weights[key]})
    with pytest.raises(KeyMismatch, match=f"1 of another shape: {named} "):
        opengvlab.load(OFFICIAL[kind], weights | {key: torch.cat((weights[key].reshape(-1), torch.zeros(3)))})


def test_names_are_the_official_ones() -> None:
    def names(kind: str) -> set[str]:
        return set(opengvlab.official_keys(opengvlab.build(OFFICIAL[kind])).values())

    assert {"branch1.blocks.0.attn.q_bias", "branch1.blocks.3.attn.relative_position_bias_table"} <= names("beit")
    assert "branch1.visual_embed.patch_embed.temporal_pos_embed.weight" in names("uni_perceiver")
    assert {"branch1.blocks.0.ls1.gamma", "branch1.blocks.0.attn.q_norm.weight", "branch2.pos_embed"} <= names(
        "internvit"
    )
    assert "interactions.1.interaction_units_12.branch2to1_injector.attn.wq.weight" in names("cross attention, no ffn")
    assert {"intermediate_merging_2_w3", "intermediate_merging_0_branch1.0.weight"} <= names("regular pyramid")
    assert {"up1.0.weight", "up1.1.bias", "up1.3.weight", "up2.0.bias"} <= names("single")
    convnext = names("single convnext")
    assert "convnext_model.encoder.stages.2.layers.8.layer_scale_parameter" in convnext
    assert {"convnext_model.embeddings.layernorm.bias", "convnext_model.layernorm.weight"} <= convnext
    assert {name.split(".")[0] for name in names("three levels")} > {"fpn1", "fpn2"}
    assert "fpn1" not in {name.split(".")[0] for name in names("three levels, two branches")}


def test_buffers_that_follow_from_the_architecture_are_checked_but_not_required() -> None:
    module = opengvlab.build(OFFICIAL["beit"])
    weights = opengvlab.to_official(module)
    buffers = [key for key in weights if key.endswith("relative_position_index")]
    assert len(buffers) == 4
    assert weights[buffers[0]].dtype == torch.int64
    assert weights[buffers[0]].shape == (9, 9)
    opengvlab.load(OFFICIAL["beit"], {key: value for key, value in weights.items() if key not in buffers})
    with pytest.raises(KeyMismatch, match=f"buffers with other contents: {buffers[1]}"):
        opengvlab.load(OFFICIAL["beit"], weights | {buffers[1]: weights[buffers[1]] + 1})


def test_the_four_branch_class_builds_its_finest_branch_like_the_next() -> None:
    official = pyramid("deit", "deit", "deit", "deit")
    official["branch4"]["embed_dim"] = 16
    backbone = opengvlab.backbone_config(official)
    assert [branch.width for branch in backbone.branches] == [32, 32, 32, 64]
    assert [branch.size for branch in backbone.branches] == [112, 96, 80, 64]


def test_groups_are_read_from_the_weights_where_a_dumped_config_has_lost_them() -> None:
    whole = pyramid("deit", "deit")
    weights = opengvlab.to_official(opengvlab.build(whole))
    dumped = {key: dict(value) if isinstance(value, dict) else value for key, value in whole.items()}
    for name in ("branch1", "branch2"):
        del dumped[name]["interaction_indexes"]
    module = opengvlab.load(dumped, weights)
    assert isinstance(module, PIIPBackbone)
    assert [branch.groups for branch in module.config.branches] == [((0, 1), (2, 3))] * 2
    with pytest.raises(ValueError, match="without `interaction_indexes`"):
        opengvlab.build(dumped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "PIIPFiveBranch"}, "'PIIPFiveBranch' is not supported; one of.*PIIPThreeBranch"),
        ({"typo": 1}, r"unknown keys in an official backbone config: \['typo'\]"),
        ({"branch1": OFFICIAL_BRANCH["deit"] | {"typo": 1}}, r"unknown keys in an official branch config: \['typo'\]"),
        ({"branch1": OFFICIAL_BRANCH["beit"] | {"use_shared_rel_pos_bias": True}}, "use_shared_rel_pos_bias=True"),
        (
            {"branch1": OFFICIAL_BRANCH["internvit"] | {"norm_layer_type": "LayerNorm"}},
            "only both of InternViT's norms",
        ),
        ({"interact_attn_type": "linear"}, "interact_attn_type 'linear'"),
        ({"branch2": None}, r"without \['branch2'\]"),
    ],
)
def test_configs_that_cannot_be_built_are_refused(change: dict[str, Any], message: str) -> None:
    official = {key: value for key, value in (OFFICIAL["deit"] | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        opengvlab.build(official)


def test_a_branch_by_timm_name_has_no_official_class() -> None:
    branches = [{"model": "vit_tiny_patch16_224", "size": 64, "groups": 1, "position_grid": 4}]
    module = PIIPBackbone(config.Backbone.model_validate({"branches": branches}))
    with pytest.raises(ValueError, match="branch 0 is timm's 'vit_tiny_patch16_224' by name"):
        opengvlab.to_official(module)
