"""PIIP-LLaVA's vision encoders (arXiv 2501.07783): five pyramids of CLIP and ConvNeXt branches."""

from __future__ import annotations

from collections.abc import Callable

from piip import config
from piip.zoo.branches import ARCHITECTURES, CONVNEXT_STAGES

STAGES = {"b": CONVNEXT_STAGES["b"], "l": ((3, 192), (3, 384), (27, 768), (3, 1536))}
CLASSIFIER_WIDTH = {"b": None, "l": 1536}
"""the larger one is timm's `convnext_large_mlp`"""
TWELVE_GROUPS = ((0, 2), (3, 6), (7, 10), *((first, first + 2) for first in range(11, 35, 3)), (35, 38))
TWO_GROUPS = ((0, 19), (20, 38))
INTERACTION = config.Interaction(heads=16, points=4, value_ratio=0.5, ffn_ratio=0.25, drop_path=0.4)


def _clip(letter: str, size: int, groups: int, grid: int) -> config.Branch:
    return config.Branch.model_validate(
        {
            **ARCHITECTURES[letter], "family": "clip", "size": size, "groups": groups, "windows": None,
            "position_grid": grid, "position_prefix": 1, "prefix_tokens": 1, "layer_scale": None,
            "activation": "quick_gelu",
        }
    )  # fmt: skip


def _convnext(letter: str, size: int, groups: tuple[config.Group, ...]) -> config.Branch:
    return config.Branch.model_validate(
        {"family": "convnext", "size": size, "stages": STAGES[letter], "groups": groups,
         "classifier_width": CLASSIFIER_WIDTH[letter]}
    )  # fmt: skip


PYRAMIDS: dict[str, Callable[[], tuple[config.Branch, config.Branch]]] = {
    "piip_llava_clip_bl_512_256": lambda: (_clip("b", 512, 2, 14), _clip("l", 256, 2, 14)),
    "piip_llava_clip_bl_512_448": lambda: (_clip("b", 512, 12, 14), _clip("l", 448, 12, 21)),
    "piip_llava_convnext_b_clip_l_640_224": lambda: (_convnext("b", 640, TWO_GROUPS), _clip("l", 224, 2, 14)),
    "piip_llava_convnext_b_clip_l_1024_336": lambda: (_convnext("b", 1024, TWELVE_GROUPS), _clip("l", 336, 12, 21)),
    "piip_llava_convnext_l_clip_l_1024_336": lambda: (_convnext("l", 1024, TWELVE_GROUPS), _clip("l", 336, 12, 21)),
}
"""branches, finest first"""

PUBLISHED_GFLOPS = {
    "piip_llava_clip_bl_512_256": 193,
    "piip_llava_clip_bl_512_448": 422,
    "piip_llava_convnext_b_clip_l_640_224": 191,
    "piip_llava_convnext_b_clip_l_1024_336": 598,
    "piip_llava_convnext_l_clip_l_1024_336": 1037,
}
"""of the paper's table, in billions of multiply-adds"""


def list_encoders() -> list[str]:
    """Names of the vision encoders."""
    return sorted(PYRAMIDS)


def encoder(name: str, width: int = 4096) -> config.Encoder:
    """The config of a vision encoder; `width` is the language model's (4096 of the 7B models, 5120 of the 13B ones).

    Raises ValueError for an unknown name.
    """
    if name not in PYRAMIDS:
        raise ValueError(f"no vision encoder {name!r}; there are {', '.join(list_encoders())}")
    backbone = config.Backbone(branches=PYRAMIDS[name](), interaction=INTERACTION, maps=None)
    return config.Encoder(name=name, backbone=backbone, width=width)
