"""The published detectors with InternViT-6B, and those with a DINO head."""

from __future__ import annotations

from typing import Any

from piip import config
from piip.data.augmentation import multi_scale
from piip.zoo.branches import deit, intern_vit, mae, mixed_windows
from piip.zoo.parts import IMAGENET, LEAN, TANH, detector, figures, pyramid, single

TEST_1024 = {"long_side": 1333, "short_side": 800, "pad_multiple": 64}
TEST_1536 = {"long_side": 1999, "short_side": 1200, "pad_multiple": 64}
DINO_MAPS = config.FeatureMaps(strides=(8, 16, 32))
DINO_RECIPE: dict[str, Any] = {"lr": 2e-4, "lr_batch_size": 32, "grad_clip": None}
"""The official configs say 0.1, but trained with DeepSpeed, whose engine alone steps, without clipping."""


def _h6b(sizes: tuple[int, int], maps: config.FeatureMaps | None = None, lean: bool = False) -> config.Backbone:
    fields, interaction = (TANH, LEAN) if lean else ({}, {})
    return pyramid([mae("h", sizes[0], **fields), intern_vit(sizes[1], **fields)], maps, **interaction)


def _lh6b(maps: config.FeatureMaps | None = None) -> config.Backbone:
    """Only four groups of blocks, and the "speedup" interactions."""
    branches = [
        deit("l", 1536, grid=24, groups=4, **TANH),
        mae("h", 1024, groups=4, **TANH),
        intern_vit(512, groups=4, **TANH),
    ]
    return pyramid(branches, maps, **LEAN)


MASK_RCNN = (
    detector(
        "internvit_6b_1024_mask_rcnn",
        "mask_rcnn_internvit_6b_fpn_1x_coco_bs16_ms",
        lambda: single(intern_vit(1024, groups=1)),
        "InternViT-6B",
        "intern_vit",
        TEST_1024,
        published=figures(53.8, 48.1, 5919, 29323),
        recipe={"layer_decay": 0.95, "augmentation": multi_scale()},
    ),
    detector(
        "piip_h6b_1024_512_mask_rcnn",
        "mask_rcnn_internvit_h6b_1024_512_fpn_1x_coco_bs16_ms",
        lambda: _h6b((1024, 512)),
        "ViT-H InternViT-6B",
        "mae intern_vit",
        TEST_1024,
        published=figures(55.8, 49.0, 6872, 11080),
        recipe={"augmentation": multi_scale()},
    ),
    detector(
        "piip_h6b_1024_512_mask_rcnn_speedup",
        "mask_rcnn_internvit_h6b_1024_512_fpn_1x_coco_bs16_ms_speedup",
        lambda: _h6b((1024, 512), lean=True),
        "ViT-H InternViT-6B",
        "mae intern_vit",
        TEST_1024,
        published=figures(55.6, 49.0, 6752, 10692),
        recipe={"augmentation": multi_scale()},
    ),
    detector(
        "piip_lh6b_1536_1024_512_mask_rcnn",
        "mask_rcnn_internvit_lh6b_1536_1024_512_fpn_1x_coco_bs32_ms",
        _lh6b,
        "ViT-L ViT-H InternViT-6B",
        "deit3 mae intern_vit",
        TEST_1536,
        recipe={"lr": 2e-4, "lr_batch_size": 32, "augmentation": multi_scale(1.5, 1536)},
        released=False,
    ),
)


def _sbl_dino() -> config.Backbone:
    sizes = {"s": 1792, "b": 1120, "l": 672}
    depths = {"s": 12, "b": 12, "l": 24}
    branches = [deit(x, size, mixed_windows(24, depths[x]), grid=24) for x, size in sizes.items()]
    return pyramid(branches, DINO_MAPS)


DINO = (
    detector(
        "piip_sbl_1792_1120_672_dino",
        "dino_4scale_deit_384_sbl_1792_1120_672_fpn_3x_coco_bs32_ms",
        _sbl_dino,
        "ViT-S ViT-B ViT-L",
        "deit3 deit3 deit3",
        {"long_side": 2332, "short_side": 1400, "pad_multiple": 224, **IMAGENET},
        published=figures(57.8),
        recipe=DINO_RECIPE | {"epochs": 36, "milestones": (27 / 36, 33 / 36), "augmentation": multi_scale(1.75, 1792)},
        head=config.DINO(),
    ),
    detector(
        "piip_h6b_1024_768_dino",
        "dino_4scale_internvit_h6b_1024_768_fpn_1x_coco_bs32_ms",
        lambda: _h6b((1024, 768), DINO_MAPS),
        "ViT-H InternViT-6B",
        "mae intern_vit",
        TEST_1024,
        published=figures(60.0),
        recipe=DINO_RECIPE | {"augmentation": multi_scale()},
        head=config.DINO(),
    ),
    detector(
        "piip_lh6b_1536_1024_512_dino",
        "dino_4scale_internvit_lh6b_1536_1024_512_fpn_2x_coco_bs32_ms",
        lambda: _lh6b(DINO_MAPS),
        "ViT-L ViT-H InternViT-6B",
        "deit3 mae intern_vit",
        TEST_1536,
        recipe=DINO_RECIPE | {"epochs": 24, "milestones": (16 / 24, 22 / 24), "augmentation": multi_scale(1.5, 1536)},
        released=False,
        head=config.DINO(),
    ),
)
