"""The nano family: trains from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from piip import config
from piip.data.names.coco import COCO_CLASSES
from piip.zoo.entries import Entry

NANO_RECIPE = {
    "lr": 1e-3,
    "lr_batch_size": None,
    "layer_decay": 1.0,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_iters": 100,
    "batch_size": 2,  # on a CPU many small steps learn more per hour than few large ones
    "grad_clip": 5.0,
    "ema": 0.995,
    "drop_empty": False,  # images without objects, too, are what users gave it to learn from
    "augmentation": {"zoom": (0.6, 1.4), "colour": 0.3},
}

NANO_SIZE = 256

NANO_PATCH = 8

NANO_HEAD = config.MaskRCNN(
    channels=64,
    fc_channels=256,
    anchor_scale=4.0,
    mask_convs=1,
    roi_batch=64,
    proposals=300,
    proposals_per_level_train=500,
    proposals_per_level_test=300,
)


def nano_backbone(
    size: int = NANO_SIZE,
    patch: int = NANO_PATCH,
    maps: config.FeatureMaps | None = None,
    widths: tuple[int, int, int] = (64, 128, 192),
    groups: int = 4,
) -> config.Backbone:
    """Three branches of 64, 128 and 192 channels, four blocks each, on `size`, 5/8 and 1/2 of it.

    Small images need small patches: of 8 pixels, with maps at half the usual strides, of which the finest (2 pixels)
    is left out by default.
    """
    sides = (size, size * 5 // 8, size // 2)
    branches = [
        config.Branch(
            size=side,
            depth=4,
            width=width,
            heads=width // 32,
            patch=patch,
            groups=config.even_groups(4, groups),
            windows=(None,) * 4,
            position_grid=max(1, side // patch),
            layer_scale=None,
        )
        for side, width in zip(sides, widths, strict=True)
    ]
    return config.Backbone(
        branches=tuple(branches),
        interaction=config.Interaction(heads=8, drop_path=0.0),
        maps=maps or config.FeatureMaps(strides=(8, 16, 32), unused_level=False),
    )


def nano_convnexts(sizes: Sequence[int], stages: Sequence[Sequence[int]]) -> tuple[config.Branch, ...]:
    """A ConvNeXt for each image side and its channels per stage, of one block each; the stages are the groups."""
    return tuple(
        config.Branch.model_validate({
            "size": size,
            "family": "convnext",
            "stages": [(1, width) for width in widths],
            "groups": ((0, 0), (1, 2), (3, 4), (5, 6)),  # a downsampling layer begins every stage but the first
            "layer_scale": 1.0,
        })
        for size, widths in zip(sizes, stages, strict=True)
    )  # fmt: skip


NANO = (
    # A Mask R-CNN of about 5 million parameters; without masks in the data it trains as Faster R-CNN.
    Entry(
        "piip_nano_mask_rcnn",
        "detection",
        nano_backbone,
        head=NANO_HEAD,
        classes=lambda: tuple(COCO_CLASSES.values()),
        category_ids=tuple(COCO_CLASSES),
        preprocess=config.Preprocess(long_side=NANO_SIZE, short_side=NANO_SIZE, pad_multiple=32),
        recipe=NANO_RECIPE,
        letters=("nano",) * 3,
    ),
)
