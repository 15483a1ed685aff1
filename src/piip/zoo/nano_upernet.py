"""The nano family's segmentor: trains from scratch on a CPU."""

from __future__ import annotations

from typing import Any

from piip import config
from piip.ade20k import ADE20K_CLASSES
from piip.zoo.entries import Entry
from piip.zoo.nano import NANO_RECIPE, nano_backbone

SIZE = 384

RECIPE: dict[str, Any] = {
    **NANO_RECIPE,
    "epochs": 60,
    "batch_size": 8,
    "schedule": "poly",
    "class_weights": "balanced",
    "augmentation": {"kind": "segmentation", "crop": 192, "resize": (0.5, 1.5)},
}

NANO_UPERNET = (
    # Maps of 4, 8 and 16 pixels' stride: with patches of 8 they are half of what they are called.
    Entry(
        "piip_nano_upernet",
        "segmentation",
        nano_backbone,
        head=config.UperNet(channels=64, auxiliary_channels=64, auxiliary_map=1),
        classes=lambda: ADE20K_CLASSES,
        preprocess=config.Preprocess(long_side=SIZE, short_side=SIZE, pad_multiple=32),
        recipe=RECIPE,
        letters=("nano",) * 3,
    ),
)
