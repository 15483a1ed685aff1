"""The demo: pictures of fruit made on the spot, a small Mask R-CNN trained on them, its score and what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from piip import config
from piip.api import PIIP
from piip.console import Terminal, say
from piip.data.fruit.scenes import CLASSES, make_fruit
from piip.training.accelerator import require_libraries
from piip.zoo.nano import NANO_HEAD, nano_convnext_backbone

NAME = "piip_demo"
IMAGE_SIZE = 256
BRANCH_SIZES = (256, 160, 128)
NMS_THRESHOLD = 0.45
"""lower than usual and over all classes: a place has one fruit, and in so short a training boxes are not very exact"""
TRAIN_IMAGES, VAL_IMAGES = 320, 48
EPOCHS = 4

RECIPE: dict[str, Any] = {
    "lr": 1.5e-3,
    "lr_batch_size": None,
    "layer_decay": 1.0,
    "schedule": "cosine",
    "warmup_iters": 30,
    "batch_size": 4,
    "grad_clip": 5.0,
    "ema": 0.98,
    "drop_empty": False,
    "drop_smaller": 0,
    "augmentation": {"flip": 0.5},  # there is no shortage of scenes, so nothing harder than the scenes themselves
    "eval_interval": 2,
    "workers": 0,
}


def demo_model() -> config.Model:
    """As `piip_nano_convnext_mask_rcnn`, on smaller images."""
    return config.Model(
        name=NAME,
        backbone=nano_convnext_backbone(BRANCH_SIZES),
        head=NANO_HEAD.model_copy(update={"nms_threshold": NMS_THRESHOLD, "class_agnostic": True}),
        classes=CLASSES,
        preprocess=config.Preprocess(long_side=IMAGE_SIZE, short_side=IMAGE_SIZE, pad_multiple=32),
    )


def run_demo(output: Path, epochs: int | None = None) -> None:
    """Everything below `output`: the data in `fruit`, the run in `detection/demo`."""
    require_libraries()
    console = Terminal()
    say(console, f"[1/2] drawing {TRAIN_IMAGES + VAL_IMAGES} pictures of fruit into {output / 'fruit'}")
    data = make_fruit(output / "fruit", train=TRAIN_IMAGES, val=VAL_IMAGES, seed=0)
    say(console, "[2/2] training a pyramid of three small ConvNeXts on them, from random weights")
    model = PIIP(demo_model())
    result = model.train(data, epochs or EPOCHS, output=output, name="demo", **RECIPE)
    say(console, f"curves:      {result.folder / 'curves.png'}")
    say(console, f"predictions: {result.folder / 'val'}/*.jpg, beside what was to be found")
    say(console, f"weights:     {result.best_weights or result.last_weights}")
