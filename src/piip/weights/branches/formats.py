"""Pretrained backbones as their publishers name things, and as our branches do (which is timm's way)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from piip.weights.errors import WeightsError
from piip.weights.files import usable
from piip.weights.header import check_header
from piip.weights.pickles import read_state_dict

Rules = list[tuple[str, str]]

LARGEST_RATIO = 20
"""an archive of weights may be so many times larger than the file; weights shrink by a few percent"""
ALWAYS_ALLOWED = 1 << 20
MOST_ARRAYS = 10_000

VIT: Rules = [
    (r"(blocks\.\d+)\.gamma_(\d)", r"vit.\1.ls\2.gamma"),  # DeiT III and BEiT; DINOv2 and InternViT have timm's names
    (r"(blocks\..+|patch_embed\..+|pos_embed|cls_token|dist_token|reg_token|register_tokens|norm_pre\..+)", r"vit.\1"),
]

UNI_PERCEIVER: Rules = [
    (r"visual_embed\.patch_embed\.(spatial|temporal)_pos_embed\.weight", r"\1_pos_embed"),
    (r"visual_embed\.patch_embed\.(proj\..+)", r"vit.patch_embed.\1"),
    (r"visual_embed\.embeddings_norm\.(.+)", r"vit.norm_pre.\1"),
    (r"layers\.(\d+)\.self_attn\.in_proj[._](weight|bias)", r"vit.blocks.\1.attn.qkv.\2"),
    (r"layers\.(\d+)\.self_attn\.out_proj\.(.+)", r"vit.blocks.\1.attn.proj.\2"),
    (r"layers\.(\d+)\.linear(\d)\.(.+)", r"vit.blocks.\1.mlp.fc\2.\3"),
    (r"layers\.(\d+)\.gamma_(\d)", r"vit.blocks.\1.ls\2.gamma"),
    (r"layers\.(\d+)\.(norm\d\..+)", r"vit.blocks.\1.\2"),
]

CONVNEXT_TIMM: Rules = [(r"((?:stem|stages|head\.norm)\..+)", r"convnext.\1")]

CONVNEXT_FACEBOOK: Rules = [
    (r"downsample_layers\.0\.(\d)\.(.+)", r"convnext.stem.\1.\2"),
    (r"downsample_layers\.([1-3])\.(\d)\.(.+)", r"convnext.stages.\1.downsample.\2.\3"),
    (r"stages\.(\d)\.(\d+)\.dwconv\.(.+)", r"convnext.stages.\1.blocks.\2.conv_dw.\3"),
    (r"stages\.(\d)\.(\d+)\.pwconv(\d)\.(.+)", r"convnext.stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"stages\.(\d)\.(\d+)\.(norm\..+|gamma)", r"convnext.stages.\1.blocks.\2.\3"),
    (r"norm\.(.+)", r"convnext.head.norm.\1"),
]

CONVNEXT_HUGGING_FACE: Rules = [
    (r"(?:convnext\.)?embeddings\.patch_embeddings\.(.+)", r"convnext.stem.0.\1"),
    (r"(?:convnext\.)?embeddings\.layernorm\.(.+)", r"convnext.stem.1.\1"),
    (r"(?:convnext\.)?encoder\.stages\.(\d)\.downsampling_layer\.(.+)", r"convnext.stages.\1.downsample.\2"),
    (r"(?:convnext\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.dwconv\.(.+)", r"convnext.stages.\1.blocks.\2.conv_dw.\3"),
    (r"(?:convnext\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.layernorm\.(.+)", r"convnext.stages.\1.blocks.\2.norm.\3"),
    (
        r"(?:convnext\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.pwconv(\d)\.(.+)",
        r"convnext.stages.\1.blocks.\2.mlp.fc\3.\4",
    ),
    (
        r"(?:convnext\.)?encoder\.stages\.(\d)\.layers\.(\d+)\.layer_scale_parameter",
        r"convnext.stages.\1.blocks.\2.gamma",
    ),
    (r"(?:convnext\.)?layernorm\.(.+)", r"convnext.head.norm.\1"),
]

FORMATS: list[tuple[str, Rules]] = [
    (r"blocks\.0\.norm1\.weight", VIT),
    (r"layers\.0\.self_attn\.in_proj[._]weight", UNI_PERCEIVER),
    (r"stages\.0\.blocks\.0\.conv_dw\.weight", CONVNEXT_TIMM),
    (r"stages\.0\.0\.dwconv\.weight", CONVNEXT_FACEBOOK),
    (r"(?:convnext\.)?encoder\.stages\.0\.layers\.0\.dwconv\.weight", CONVNEXT_HUGGING_FACE),
]
"""a tensor that only one format has, and the rules of that format. The same rules serve AugReg, whose arrays get timm's
names first"""


def read_branch_file(path: Path) -> dict[str, Tensor]:
    """A pretrained backbone's tensors under our names; those without a place in a branch keep their own.

    Raises WeightsError for an unreadable file and an unknown format.
    """
    if path.suffix == ".npz":
        return normalised(read_augreg(path), str(path))
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise WeightsError(f"{path}: no such file")
        try:
            check_header(path)
            found = {name: usable(name, tensor, path) for name, tensor in load_file(path).items()}
            return normalised(found, str(path))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: cut off or damaged ({error})") from error
    return normalised(read_state_dict(path), str(path))


def normalised(theirs: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A state dict under our names."""
    theirs = _without_wrapper(theirs)
    for landmark, rules in FORMATS:
        if any(re.fullmatch(landmark, name) for name in theirs):
            return _shared_bias_expanded({_renamed(name, rules): tensor for name, tensor in theirs.items()})
    known = (
        "DeiT, DeiT III, AugReg (.npz), MAE, DINOv2, BEiTv2, Uni-Perceiver, InternViT-6B, ConvNeXt and timm's models"
    )
    raise WeightsError(f"{source}: not a backbone in a known format; these are read: {known}")


def _without_wrapper(theirs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Names without a common first part, such as "backbone." or "encoder."."""
    for prefix in ("module.", "backbone.", "visual.", "encoder."):
        if any(re.fullmatch(re.escape(prefix) + r"(blocks|layers)\.0\..+", name) for name in theirs):
            return {name.removeprefix(prefix): tensor for name, tensor in theirs.items()}
    return theirs


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return name


def _shared_bias_expanded(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """BEiT's pretraining shares one table among all blocks; after it each has its own."""
    shared = ours.pop("rel_pos_bias.relative_position_bias_table", None)
    if shared is not None:
        blocks = {match[1] for name in ours if (match := re.match(r"(vit\.blocks\.\d+)\.", name))}
        ours |= {f"{block}.attn.relative_position_bias_table": shared for block in blocks}
    return {name: tensor for name, tensor in ours.items() if not name.endswith("relative_position_index")}


# -- AugReg ----------------------------------------------------------------------------------------------------------


def read_augreg(path: Path) -> dict[str, Tensor]:
    """The arrays of a JAX vision transformer (`.npz`) under timm's names. Pickled objects are refused."""
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(np.array(file[name], dtype=np.float32)) for name in file.files}
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged archive makes the reader trip over
        raise WeightsError(f"{path}: cut off, damaged, or not plain arrays ({error})") from None
    if "embedding/kernel" not in arrays:
        raise WeightsError(f"{path}: not AugReg's weights: there is no array embedding/kernel")
    return _augreg_names(arrays)


def check_archive(path: Path) -> None:
    """WeightsError for an archive that grows when it is unpacked as no weights do, or is no regular file."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_ARRAYS or unpacked > max(ALWAYS_ALLOWED, LARGEST_RATIO * path.stat().st_size):
        raise WeightsError(f"{path}: refused: {len(entries)} arrays that would grow from {path.stat().st_size} to "
                           f"{unpacked} bytes")  # fmt: skip


def _augreg_names(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {
        "patch_embed.proj.weight": arrays["embedding/kernel"].permute(3, 2, 0, 1),
        "patch_embed.proj.bias": arrays["embedding/bias"],
    }
    for name, array in arrays.items():
        if match := re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)", name):
            named |= _augreg_block(f"blocks.{match[1]}", match[2], array, arrays, name)
        elif name == "Transformer/posembed_input/pos_embedding":
            named["pos_embed"] = array
        elif name == "cls":
            named["cls_token"] = array
        elif not name.startswith("embedding/"):
            named[name] = array
    return {name: tensor.contiguous() for name, tensor in named.items()}


def _augreg_block(block: str, part: str, array: Tensor, arrays: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """One array of a block: kernels are [in, out] there, and attention's have an axis for the heads."""
    attention = "MultiHeadDotProductAttention_1"
    if match := re.fullmatch(rf"{attention}/(query|key|value)/(kernel|bias)", part):
        if match[1] != "query":
            return {}
        parts = [arrays[name.replace("query", which)] for which in ("query", "key", "value")]
        if match[2] == "kernel":
            return {f"{block}.attn.qkv.weight": torch.cat([kernel.flatten(1).T for kernel in parts])}
        return {f"{block}.attn.qkv.bias": torch.cat([bias.flatten() for bias in parts])}
    if part == f"{attention}/out/kernel":
        return {f"{block}.attn.proj.weight": array.flatten(0, 1).T}
    if part == f"{attention}/out/bias":
        return {f"{block}.attn.proj.bias": array}
    if match := re.fullmatch(r"MlpBlock_3/Dense_(\d)/(kernel|bias)", part):
        layer = f"{block}.mlp.fc{int(match[1]) + 1}"
        return {f"{layer}.weight": array.T} if match[2] == "kernel" else {f"{layer}.bias": array}
    if match := re.fullmatch(r"LayerNorm_(0|2)/(scale|bias)", part):
        norm = f"{block}.norm{1 if match[1] == '0' else 2}"
        return {f"{norm}.{'weight' if match[2] == 'scale' else 'bias'}": array}
    return {f"{block}.{part}": array}
