"""The pretrained branches that the published models are made of: architectures, and what is known of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from piip import config

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "t": {"depth": 12, "width": 192, "heads": 3},
    "s": {"depth": 12, "width": 384, "heads": 6},
    "b": {"depth": 12, "width": 768, "heads": 12},
    "l": {"depth": 24, "width": 1024, "heads": 16},
    "h": {"depth": 32, "width": 1280, "heads": 16},
    "6b": {"depth": 48, "width": 3200, "heads": 25},
}
"""plain ViTs by their letter"""

CONVNEXT_STAGES = {
    "t": ((3, 96), (3, 192), (9, 384), (3, 768)),
    "s": ((3, 96), (3, 192), (27, 384), (3, 768)),
    "b": ((3, 128), (3, 256), (27, 512), (3, 1024)),
}
CONVNEXT_GROUPS = {"t": (3, 4, 2, *(1,) * 8, 4), "s": (3, 4, 4, *(3,) * 8, 4), "b": (3, 4, 4, *(3,) * 8, 4)}
"""blocks per group: downsampling layers are counted, and groups end where the published configs end them"""
CONVNEXT_DROP_PATH = {"t": 0.3, "s": 0.3, "b": 0.4}

DROP_PATH = {
    "deit": {"t": 0.05, "s": 0.05, "b": 0.15, "l": 0.4},
    "augreg": {"s": 0.2, "b": 0.3, "l": 0.4},
    "dinov2": {"s": 0.2, "b": 0.3, "l": 0.4},
    "mae": {"b": 0.15, "l": 0.4, "h": 0.4},
    "beitv2": {"b": 0.15, "l": 0.4},
    "uni_perceiver": {"b": 0.15, "l": 0.4},
    "intern_vit": {"6b": 0.4},
}
"""stochastic depth in the published detectors"""

H_GROUPS = (2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)
"""blocks per group of a ViT-H that interacts twelve times"""


@dataclass(frozen=True)
class Pretraining:
    """Where a branch's weights came from before PIIP."""

    label: str
    licence: str
    """SPDX identifier, as their publishers state it"""


PRETRAININGS = {
    "deit": Pretraining("DeiT", "Apache-2.0"),
    "deit3": Pretraining("DeiT III", "Apache-2.0"),
    "augreg": Pretraining("AugReg", "Apache-2.0"),
    "mae": Pretraining("MAE", "CC-BY-NC-4.0"),
    "dinov2": Pretraining("DINOv2", "Apache-2.0"),
    "beitv2": Pretraining("BEiTv2", "MIT"),
    "uni_perceiver": Pretraining("Uni-Perceiver", "Apache-2.0"),
    "intern_vit": Pretraining("InternViT", "MIT"),
    "convnext": Pretraining("ConvNeXt", "Apache-2.0"),
}


SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge"}

TIMM_NAMES = {
    "deit": "deit_{size}_patch16_224.fb_in1k",
    "deit3": "deit3_{size}_patch16_{pixels}.fb_in22k_ft_in1k",
    "augreg": "vit_{size}_patch16_{pixels}.augreg_in21k_ft_in1k",
    "mae": "vit_{size}_patch{patch}_224.mae",
    "dinov2": "vit_{size}_patch14_dinov2.lvd142m",
    "beitv2": "beitv2_{size}_patch16_224.in1k_ft_in22k",
    "convnext": "convnext_{size}.fb_in1k",
}
"""the same weights in timm, where it has them"""


def timm_name(pretraining: str, letter: str, grid: int | None) -> str | None:
    """timm's name for the weights that a published branch began as, or None where timm does not have them."""
    if pretraining not in TIMM_NAMES:
        return None
    pixels, patch = 384 if grid == 24 else 224, 14 if letter == "h" else 16
    return TIMM_NAMES[pretraining].format(size=SIZES[letter], pixels=pixels, patch=patch)


def groups_of(lengths: Sequence[int]) -> tuple[config.Group, ...]:
    """First and last block of consecutive groups of these lengths.

    >>> groups_of((2, 3))
    ((0, 1), (2, 4))
    """
    ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
    return tuple((end - length, end - 1) for end, length in zip(ends, lengths, strict=True))


def mixed_windows(window: int, depth: int) -> tuple[int | None, ...]:
    """Windows in all blocks but every third, which attends globally."""
    return tuple(None if index % 3 == 2 else window for index in range(depth))


def deit(
    letter: str, size: int, windows: Any = None, *, grid: int = 14, groups: int = 12, **fields: Any
) -> config.Branch:
    """DeiT (T) or DeiT III (S, B, L); `grid` 14 for weights of 224 pixels, 24 for 384."""
    return _vit(letter, size, windows, groups=groups, position_grid=grid,
                drop_path=DROP_PATH["deit"][letter], **fields)  # fmt: skip


def augreg(letter: str, size: int, windows: Any = None, **fields: Any) -> config.Branch:
    """AugReg at 384 pixels."""
    return _with_class_row("augreg", letter, size, windows, position_grid=24, **fields)


def mae(letter: str, size: int, windows: Any = None, *, grid: int = 14, **fields: Any) -> config.Branch:
    """MAE at 224 pixels, its kernels of 14 (H) resized to 16."""
    return _with_class_row("mae", letter, size, windows, position_grid=grid, **fields)


def dinov2(letter: str, size: int, windows: Any = None, **fields: Any) -> config.Branch:
    """DINOv2 at 518 pixels, its kernels of 14 resized to 16 and with them the positions."""
    return _with_class_row("dinov2", letter, size, windows, position_grid=32, **fields)


def beitv2(letter: str, size: int, window: int) -> config.Branch:
    """BEiTv2: a relative position bias in every window instead of positions."""
    return _vit(letter, size, window, family="beit", position_grid=None, drop_path=DROP_PATH["beitv2"][letter],
                drop_path_schedule="linear", layer_scale=1e-6)  # fmt: skip


def uni_perceiver(letter: str, size: int, window: int) -> config.Branch:
    """Uni-Perceiver at 224 pixels."""
    return _vit(letter, size, window, family="uni_perceiver", position_grid=14, drop_path_schedule="linear",
                drop_path=DROP_PATH["uni_perceiver"][letter])  # fmt: skip


def intern_vit(size: int, *, grid: int = 14, groups: int = 12, **fields: Any) -> config.Branch:
    """InternViT-6B at 224 pixels, its kernels of 14 resized to 16 and with them the positions."""
    return _with_class_row("intern_vit", "6b", size, None, family="intern_vit", groups=groups, position_grid=grid,
                           layer_scale=0.1, qkv_bias=False, **fields)  # fmt: skip


def convnext(letter: str, size: int, single: bool = False) -> config.Branch:
    """ConvNeXt at 224 pixels; `single`: as the baseline, in four groups, which are its stages."""
    stages = CONVNEXT_STAGES[letter]
    lengths: Sequence[int] = CONVNEXT_GROUPS[letter]
    if single:
        lengths = [blocks + (index > 0) for index, (blocks, _) in enumerate(stages)]
    return config.Branch.model_validate({
        "size": size, "family": "convnext", "stages": stages, "groups": groups_of(lengths),
        "drop_path": 0.0 if single else CONVNEXT_DROP_PATH[letter],
    })  # fmt: skip


def _with_class_row(pretraining: str, letter: str, size: int, windows: Any, **fields: Any) -> config.Branch:
    """A branch whose stored positions begin with a class token's row."""
    usual = {
        "drop_path": DROP_PATH[pretraining][letter],
        "drop_path_schedule": "linear",
        "position_prefix": 1,
        "prefix_positions": False,
        "checkpointing": True,
    }
    return _vit(letter, size, windows, **(usual | fields))


def _vit(letter: str, size: int, windows: Any, **fields: Any) -> config.Branch:
    """A plain ViT; twelve groups of blocks where `groups` does not say otherwise."""
    architecture = ARCHITECTURES[letter]
    groups = fields.pop("groups", 12)
    if letter == "h" and groups == 12:
        groups = groups_of(H_GROUPS)
    return config.Branch.model_validate({"size": size, "windows": windows, "groups": groups, **architecture} | fields)
