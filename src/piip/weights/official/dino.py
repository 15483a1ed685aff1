"""Official DINO detectors (OpenGVLab/PIIP): their heads as ours, and our state-dict keys with their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from piip import config
from piip.heads.dino.losses import BOX_WEIGHT, CLASS_WEIGHT, GIOU_WEIGHT
from piip.heads.dino.matching import ALPHA, BOX_COST, CLASS_COST, GAMMA, GIOU_COST
from piip.weights.keymap import Rule
from piip.weights.official.branches import Official

HEADS, POINTS = 8, 4
"""of the official attentions, where the config does not say otherwise"""


def is_dino(official: Official) -> bool:
    """Whether an official `model` dictionary is a DINO's."""
    return official.get("type") == "DINO"


def dino_head(model: Official) -> config.DINO:
    """The head of an official `model` dictionary in our terms; ValueError for what this version cannot build."""
    neck, head, test = model["neck"], model["bbox_head"], model["test_cfg"]
    transformer, position, noise = head["transformer"], head["positional_encoding"], head["dn_cfg"]
    encoder, decoder = transformer["encoder"], transformer["decoder"]
    encoder_attention = encoder["transformerlayers"]["attn_cfgs"]
    self_attention, cross_attention = decoder["transformerlayers"]["attn_cfgs"]
    _require(_fixed(model), "DINO heads")
    groups = noise["group_cfg"]
    points = encoder_attention.get("num_points", POINTS)
    heads = encoder_attention.get("num_heads", HEADS)
    same = {
        "embed_dims": [one["embed_dims"] for one in (encoder_attention, self_attention, cross_attention)],
        "num_heads": [heads, self_attention["num_heads"], cross_attention.get("num_heads", HEADS)],
        "num_points": [points, cross_attention.get("num_points", POINTS)],
        "feedforward_channels": [part["transformerlayers"]["feedforward_channels"] for part in (encoder, decoder)],
        "queries": [head["num_query"], transformer["two_stage_num_proposals"]],
        "channels": [neck["out_channels"], self_attention["embed_dims"], 2 * position["num_feats"]],
    }
    for what, values in same.items():
        if len(set(values)) > 1:
            raise ValueError(f"official DINO head with different {what}, {values}, is not supported")
    return config.DINO(
        channels=neck["out_channels"],
        heads=heads,
        points=points,
        levels=neck["num_outs"],
        encoder_layers=encoder["num_layers"],
        decoder_layers=decoder["num_layers"],
        ffn_channels=encoder["transformerlayers"]["feedforward_channels"],
        queries=head["num_query"],
        denoising_queries=groups["num_dn_queries"],
        label_noise=noise["noise_scale"]["label"],
        box_noise=noise["noise_scale"]["box"],
        temperature=position.get("temperature", 10000),
        detections=test.get("max_per_img", head["num_query"]),
    )


def _fixed(model: Official) -> dict[str, tuple[Any, Any]]:
    """What is not a matter of configuration here: its name, the official value and the one supported."""
    neck, head = model["neck"], model["bbox_head"]
    encoder, decoder = (head["transformer"][part]["transformerlayers"] for part in ("encoder", "decoder"))
    dropouts = [one.get("dropout", 0.1) for one in (encoder["attn_cfgs"], *decoder["attn_cfgs"])]
    cost = (model.get("train_cfg") or head["train_cfg"])["assigner"]
    focal = head["loss_cls"]
    return {
        "neck": ([neck["type"], neck["kernel_size"], neck["norm_cfg"]], ["ChannelMapper", 1, GROUP_NORM]),
        "operation_order": ([encoder["operation_order"], decoder["operation_order"]], ORDERS),
        "dropout": ([*dropouts, encoder["ffn_dropout"], decoder["ffn_dropout"]], [0.0] * 5),
        "two stages": ([head["as_two_stage"], head["with_box_refine"]], [True, True]),
        "normalised positions": (head["positional_encoding"].get("normalize", False), True),
        "dynamic denoising groups": (head["dn_cfg"]["group_cfg"].get("dynamic", False), True),
        "sync_cls_avg_factor": (head.get("sync_cls_avg_factor", False), True),
        "focal loss": ([focal["gamma"], focal["alpha"]], [GAMMA, ALPHA]),
        "loss weights": (
            [head[loss]["loss_weight"] for loss in ("loss_cls", "loss_bbox", "loss_iou")],
            [CLASS_WEIGHT, BOX_WEIGHT, GIOU_WEIGHT],
        ),
        "matching costs": (
            [cost[one]["weight"] for one in ("cls_cost", "reg_cost", "iou_cost")],
            [CLASS_COST, BOX_COST, GIOU_COST],
        ),
    }


GROUP_NORM = {"type": "GN", "num_groups": config.GROUP_NORM_GROUPS}
ORDERS = [
    ["self_attn", "norm", "ffn", "norm"],
    ["self_attn", "norm", "cross_attn", "norm", "ffn", "norm"],
]


def _require(facts: Mapping[str, tuple[Any, Any]], what: str) -> None:
    for name, (found, supported) in facts.items():
        if found != supported:
            raise ValueError(f"official {what} with {name} {found} are not supported; {supported} is")


def dino_rules(head: config.DINO) -> list[Rule]:
    """The rules for neck and head; those of the backbone are `official_keys`'s."""
    transformer, last = "bbox_head.transformer", head.decoder_layers
    rules: list[Rule] = [
        (r"head\.mapper\.projections\.(\d)\.0\.(.+)", r"neck.convs.\1.conv.\2"),
        (r"head\.mapper\.projections\.(\d)\.1\.(.+)", r"neck.convs.\1.gn.\2"),
        (r"head\.mapper\.extra\.(\d)\.0\.(.+)", r"neck.extra_convs.\1.conv.\2"),
        (r"head\.mapper\.extra\.(\d)\.1\.(.+)", r"neck.extra_convs.\1.gn.\2"),
        (r"head\.encoder\.level_embedding\.weight", f"{transformer}.level_embeds"),
        (r"head\.selection\.project\.(.+)", rf"{transformer}.enc_output.\1"),
        (r"head\.selection\.norm\.(.+)", rf"{transformer}.enc_output_norm.\1"),
        (r"head\.selection\.content\.(.+)", rf"{transformer}.query_embed.\1"),
        # The official head keeps all its branches together: one per decoder layer, then that of the encoder.
        (r"head\.selection\.scores\.(.+)", rf"bbox_head.cls_branches.{last}.\1"),
        (r"head\.selection\.boxes\.(.+)", rf"bbox_head.reg_branches.{last}.\1"),
        (r"head\.decoder\.scores\.(\d+)\.(.+)", r"bbox_head.cls_branches.\1.\2"),
        (r"head\.decoder\.boxes\.(\d+)\.(.+)", r"bbox_head.reg_branches.\1.\2"),
        (r"head\.decoder\.position\.(.+)", rf"{transformer}.decoder.ref_point_head.\1"),
        (r"head\.decoder\.norm\.(.+)", rf"{transformer}.decoder.norm.\1"),
        (r"head\.label_embedding\.(.+)", r"bbox_head.label_embedding.\1"),
    ]
    for part, attention in (("encoder", ("attention",)), ("decoder", ("self_attention", "cross_attention"))):
        rules += _layer_rules(rf"head\.{part}\.layers\.(\d+)\.", rf"{transformer}.{part}.layers.\1.", attention)
    return rules


def _layer_rules(ours: str, theirs: str, attentions: tuple[str, ...]) -> list[Rule]:
    rules: list[Rule] = []
    for number, attention in enumerate(attentions):
        mine, official = rf"{ours}{attention}\.", f"{theirs}attentions.{number}."
        if attention == "self_attention":
            rules += [(mine + r"in_proj\.(.+)", official + r"attn.in_proj_\2")]
            rules += [(mine + r"out_proj\.(.+)", official + r"attn.out_proj.\2")]
            continue
        names = {"offsets": "sampling_offsets", "weights": "attention_weights"}
        names |= {"value": "value_proj", "output": "output_proj"}
        rules += [(rf"{mine}{name}\.(.+)", rf"{official}{other}.\2") for name, other in names.items()]
    for number in range(len(attentions) + 1):
        rules.append((rf"{ours}norm{number + 1}\.(.+)", rf"{theirs}norms.{number}.\2"))
    return [
        *rules,
        (ours + r"ffn\.0\.(.+)", theirs + r"ffns.0.layers.0.0.\2"),
        (ours + r"ffn\.2\.(.+)", theirs + r"ffns.0.layers.1.\2"),
    ]
