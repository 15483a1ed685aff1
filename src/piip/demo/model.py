"""The demo's model, a small Mask R-CNN on a pyramid of three ConvNeXts, and the weights that it begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from piip import config
from piip.data.fruit.scenes import CLASSES
from piip.zoo.nano import NANO_HEAD, nano_convnexts

NAME = "piip_demo"
IMAGE_SIZE = 256
BRANCH_SIZES = (256, 160, 128)
STAGES = ((24, 48, 72, 96), (32, 64, 96, 112), (32, 64, 96, 128))
"""channels of each branch's stages, finest branch first: half the parameters of `piip_nano_convnext_mask_rcnn`"""
NEW = "watermelon"
"""the fruit that the weights do not know"""
KNOWN = tuple(name for name in CLASSES if name != NEW)
WEIGHTS = Path(__file__).with_name("fruit.safetensors")
"""made by `benchmarks/demo_weights.py` on other scenes, none of them with a watermelon; 16 bits a number"""

HEAD = NANO_HEAD.model_copy(
    update={
        "fc_channels": 128,
        "roi_batch": 48,
        "proposals": 200,
        "proposals_per_level_train": 300,
        "proposals_per_level_test": 200,
        # Lower than usual and over all classes: a place has one fruit.
        "nms_threshold": 0.45,
        "class_agnostic": True,
    }
)

RECIPE: dict[str, Any] = {
    "lr": 1.5e-3,
    "lr_batch_size": None,
    "layer_decay": 1.0,
    "schedule": "cosine",
    "batch_size": 4,
    "grad_clip": 5.0,
    "drop_empty": False,
    "drop_smaller": 0,
    "augmentation": {"flip": 0.5},  # there is no shortage of scenes, so nothing harder than the scenes themselves
    "workers": 0,
}
"""of both trainings, that of the weights and the demo's"""


def demo_model() -> config.Model:
    """As `piip_nano_convnext_mask_rcnn`, smaller and on smaller images, for the fruit that the weights know."""
    backbone = config.Backbone(
        branches=nano_convnexts(BRANCH_SIZES, STAGES),
        interaction=config.Interaction(heads=4, drop_path=0.0),
        maps=config.FeatureMaps(merge_after=(0, 1, 2)),
    )
    preprocess = config.Preprocess(long_side=IMAGE_SIZE, short_side=IMAGE_SIZE, pad_multiple=32)
    return config.Model(name=NAME, backbone=backbone, head=HEAD, classes=KNOWN, preprocess=preprocess)
