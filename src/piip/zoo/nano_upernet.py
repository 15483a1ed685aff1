"""The nano family's segmentor: trains from scratch on a CPU."""

from __future__ import annotations

from typing import Any

from piip import config
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.zoo.entries import Entry
from piip.zoo.nano import nano_convnexts

SIZE = 384

STAGES = ((32, 64, 96, 128), (64, 96, 128, 160), (64, 128, 192, 256))
"""channels of each branch's stages, finest branch first; a stage has one block"""

RECIPE: dict[str, Any] = {
    "epochs": 24,
    "batch_size": 2,
    "lr": 1.5e-3,
    "lr_batch_size": None,
    "layer_decay": 1.0,
    "weight_decay": 0.05,
    "schedule": "poly",
    "warmup_iters": 200,
    "grad_clip": 5.0,
    "ema": 0.997,
    "class_weights": "balanced",
    "augmentation": {"kind": "segmentation", "crop": 192, "resize": (0.7, 1.4), "distortion": 0.4},
}


def nano_upernet_backbone() -> config.Backbone:
    """Three ConvNeXts on an image, 5/8 and 1/2 of it, merged after every stage: maps at strides 4 to 32.

    A fifth of the multiply-adds of the nano family's ViTs at the same size.
    """
    return config.Backbone(
        branches=nano_convnexts((SIZE, SIZE * 5 // 8, SIZE // 2), STAGES),
        interaction=config.Interaction(heads=4, drop_path=0.0),
        maps=config.FeatureMaps(merge_after=(0, 1, 2)),
    )


NANO_UPERNET = (
    Entry(
        "piip_nano_upernet",
        "segmentation",
        nano_upernet_backbone,
        head=config.UperNet(channels=64, auxiliary_channels=64),
        classes=lambda: ADE20K_CLASSES,
        preprocess=config.Preprocess(long_side=SIZE, short_side=SIZE, pad_multiple=32),
        recipe=RECIPE,
        letters=("nano",) * 3,
    ),
)
