"""The classifier of the nano family: small images, trained from scratch on a CPU."""

from __future__ import annotations

from typing import Any

from piip import config
from piip.data.names.imagenet import IMAGENET_MEAN, IMAGENET_STD
from piip.zoo.entries import Entry
from piip.zoo.nano import nano_convnexts

SIZE = 64
"""twice the side of CIFAR's images, so that the first patches are of 2 x 2 of their pixels"""

STAGES = (
    (SIZE, (32, 64, 96, 128)),
    (SIZE * 3 // 4, (64, 96, 128, 160)),
    (SIZE // 2, (64, 128, 192, 256)),
)
"""image side and width of each stage, finest branch first; a stage has one block"""

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

RECIPE: dict[str, Any] = {
    "epochs": 26,
    "batch_size": 32,
    "lr": 1e-3,
    "lr_batch_size": None,
    "layer_decay": 1.0,
    "new_lr_factor": 1.0,
    "branch_head_lr_factor": None,
    "weight_decay": 0.05,
    "decay_all": False,
    "schedule": "cosine",
    "warmup_part": None,
    "warmup_iters": 300,
    "warmup_lr": None,
    "warmup_ratio": 0.01,
    "min_lr": None,
    "min_lr_ratio": 0.01,
    "grad_clip": 5.0,
    "ema": 0.998,
    "augmentation": {"kind": "classification", "area": (0.5, 1.0), "policy": None, "mix": 0.25},
}


def nano_classifier_backbone() -> config.Backbone:
    """Three ConvNeXts, whose convolutions learn from few images what ViTs need many for; stages are the groups."""
    branches = nano_convnexts([size for size, _ in STAGES], [widths for _, widths in STAGES])
    return config.Backbone(branches=branches, interaction=config.Interaction(heads=4, drop_path=0.0), maps=None)


NANO_CLASSIFIER = (
    # 3.2 million parameters
    Entry(
        "piip_nano_classifier",
        "classification",
        nano_classifier_backbone,
        preprocess=config.Preprocess(
            long_side=SIZE, short_side=SIZE, pad_multiple=1, mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
        classes=lambda: CIFAR_CLASSES,
        head=config.Classifier(separate_head=False),
        recipe=RECIPE,
        letters=("nano",) * 3,
    ),
)
