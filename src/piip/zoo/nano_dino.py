"""The nano family's DINO: trains from scratch on a CPU."""

from __future__ import annotations

from typing import Any

from piip import config
from piip.data.names.coco import COCO_CLASSES
from piip.zoo.entries import Entry
from piip.zoo.nano import NANO_RECIPE, nano_backbone

SIZE = 320

PATCH = 8
"""small objects of small images need small patches"""

# Three levels (8, 16 and 32 pixels per cell, the last the head's own) instead of four, no wide layers: most of the time
# goes into the finest level.
NANO_DINO_HEAD = config.DINO(
    channels=128,
    heads=4,
    levels=3,
    encoder_layers=2,
    decoder_layers=3,
    ffn_channels=256,
    queries=150,
    denoising_queries=50,
    detections=100,
)

RECIPE: dict[str, Any] = {**NANO_RECIPE, "lr": 6e-4, "grad_clip": 1.0}


def nano_dino_backbone() -> config.Backbone:
    """Narrow branches on patches of 8 pixels: maps of 8 and 16 pixels per cell."""
    maps = config.FeatureMaps(strides=(16, 32), unused_level=False)
    return nano_backbone(SIZE, PATCH, maps, widths=(64, 96, 128), groups=2)


NANO_DINO = (
    # A DINO of about 4 million parameters, for boxes; masks in the data are not used.
    Entry(
        "piip_nano_dino",
        "detection",
        nano_dino_backbone,
        head=NANO_DINO_HEAD,
        classes=lambda: tuple(COCO_CLASSES.values()),
        category_ids=tuple(COCO_CLASSES),
        preprocess=config.Preprocess(long_side=SIZE, short_side=SIZE, pad_multiple=32),
        recipe=RECIPE,
        letters=("nano",) * 3,
    ),
)
