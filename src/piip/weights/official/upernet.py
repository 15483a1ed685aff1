"""Official segmentors (OpenGVLab/PIIP): their heads as ours, and our state-dict keys with their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from piip import config
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.data.names.imagenet import IMAGENET_MEAN, IMAGENET_STD
from piip.weights.keymap import Rule
from piip.weights.official.branches import Official

ADE20K_PREPROCESS = config.Preprocess(
    long_side=2048, long_side_in_tests=False, short_side=512, pad_multiple=1, mean=IMAGENET_MEAN, std=IMAGENET_STD
)
"""of the released models"""


def is_segmentor(official: Official) -> bool:
    """Whether an official `model` dictionary is a segmentor's."""
    return official.get("type") == "EncoderDecoder"


def segmentor_config(official: Official, backbone: config.Backbone) -> config.Model:
    """An official segmentor (a whole resolved config or its `model` dictionary) with its `backbone` in our terms."""
    model = official.get("model", official)
    decode = model["decode_head"]
    if decode.get("type") != "UPerHead" or decode.get("align_corners", False):
        raise ValueError(f"official decode head {decode.get('type')!r} is not supported; UPerHead without "
                         "align_corners is")  # fmt: skip
    if list(decode.get("in_index", range(4))) != [0, 1, 2, 3]:
        raise ValueError(f"official decode head on maps {decode['in_index']}; only all four, in order, are supported")
    return config.Model(
        name=str(official.get("name", "official")),
        backbone=backbone,
        head=_head(decode, model.get("auxiliary_head"), model.get("test_cfg") or {}),
        classes=_classes(decode["num_classes"]),
        preprocess=ADE20K_PREPROCESS,
    )


def upernet_rules() -> list[Rule]:
    """The rules for the head; those of the backbone are `official_keys`'s."""
    blocks = {
        r"decoder\.pools\.(\d)\.1": r"decode_head.psp_modules.{}.1",
        r"decoder\.pooled": "decode_head.bottleneck",
        r"decoder\.laterals\.(\d)": "decode_head.lateral_convs.{}",
        r"decoder\.smooth\.(\d)": "decode_head.fpn_convs.{}",
        r"decoder\.fuse": "decode_head.fpn_bottleneck",
        r"auxiliary\.0": "auxiliary_head.convs.0",
    }
    rules: list[Rule] = []
    for ours, theirs in blocks.items():
        numbered = "{}" in theirs
        rest = r"\2" if numbered else r"\1"
        for layer, name in enumerate(("conv", "bn")):
            rules.append((rf"head\.{ours}\.{layer}\.(.+)", f"{theirs.format(chr(92) + '1')}.{name}.{rest}"))
    rules += [
        (r"head\.decoder\.classify\.1\.(.+)", r"decode_head.conv_seg.\1"),
        (r"head\.auxiliary\.2\.(.+)", r"auxiliary_head.conv_seg.\1"),
    ]
    return rules


def with_counters(state_dict: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """`state_dict` with zeros for the BatchNorm counters among `names` that it lacks; they change no output."""
    missing = [name for name in names if name.endswith(".num_batches_tracked") and name not in state_dict]
    return {**state_dict, **{name: torch.zeros((), dtype=torch.int64) for name in missing}}


def _head(decode: Official, auxiliary: Official | None, test: Official) -> config.UperNet:
    sliding = test.get("mode") == "slide"
    head = config.UperNet(
        channels=decode["channels"],
        pool_bins=tuple(decode["pool_scales"]),
        dropout=decode.get("dropout_ratio", 0.1),
        auxiliary_channels=None,
        window=_side(test["crop_size"]) if sliding else None,
        stride=_side(test["stride"]) if sliding else None,
    )
    if auxiliary is None:
        return head
    if auxiliary.get("type") != "FCNHead" or auxiliary.get("num_convs", 2) != 1 or auxiliary.get("concat_input", True):
        raise ValueError("official auxiliary heads other than an FCNHead of one convolution are not supported")
    update = {
        "auxiliary_channels": auxiliary["channels"],
        "auxiliary_map": auxiliary["in_index"],
        "auxiliary_weight": auxiliary["loss_decode"]["loss_weight"],
    }
    return config.UperNet.model_validate(head.model_dump() | update)


def _side(sides: list[int]) -> int:
    if len(set(sides)) != 1:
        raise ValueError(f"official test windows that are not square, {sides}, are not supported")
    return int(sides[0])


def _classes(count: int) -> tuple[str, ...]:
    return ADE20K_CLASSES if count == len(ADE20K_CLASSES) else tuple(f"class {label}" for label in range(count))
