"""The nano family's DINO: trains from scratch on a CPU."""

from __future__ import annotations

from typing import Any

from piip import config
from piip.classes import COCO_CLASSES
from piip.zoo.entries import Entry
from piip.zoo.nano import NANO_RECIPE, nano_backbone

SIZE = 320

PATCH = 16

# Three levels instead of four, no wide layers: most of the time goes into the finest level. The encoder's proposals are
# matched one to many, from which the backbone learns sooner what an object is.
NANO_DINO_HEAD = config.DINO(
    channels=128,
    heads=4,
    levels=3,
    encoder_layers=2,
    decoder_layers=3,
    ffn_channels=256,
    queries=150,
    denoising_queries=50,
    encoder_matches=4,
    detections=100,
)

RECIPE: dict[str, Any] = {**NANO_RECIPE, "lr": 6e-4, "grad_clip": 1.0}


def nano_dino_backbone() -> config.Backbone:
    """Narrow branches on patches of 16 pixels: maps at strides 8, 16 and 32."""
    return nano_backbone(SIZE, PATCH, widths=(64, 96, 128), groups=2)


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
