"""The nano family's DINO: trains from scratch on a CPU."""

from __future__ import annotations

from typing import Any

from piip import config
from piip.classes import COCO_CLASSES
from piip.zoo.entries import Entry
from piip.zoo.nano import NANO_RECIPE, NANO_SIZE, nano_backbone

RECIPE: dict[str, Any] = {**NANO_RECIPE, "grad_clip": 1.0}

NANO_DINO_HEAD = config.DINO(
    channels=128,
    heads=8,
    points=4,
    levels=3,
    encoder_layers=2,
    decoder_layers=3,
    ffn_channels=256,
    queries=100,
    denoising_queries=50,
    detections=100,
)

NANO_DINO = (
    Entry(
        "piip_nano_dino",
        "detection",
        nano_backbone,
        head=NANO_DINO_HEAD,
        classes=lambda: tuple(COCO_CLASSES.values()),
        category_ids=tuple(COCO_CLASSES),
        preprocess=config.Preprocess(long_side=NANO_SIZE, short_side=NANO_SIZE, pad_multiple=32),
        recipe=RECIPE,
        letters=("nano",) * 3,
    ),
)
