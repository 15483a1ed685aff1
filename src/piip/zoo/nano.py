"""The nano family, a model per kind of head: they train from scratch on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from piip import config
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.data.names.coco import COCO_CLASSES
from piip.data.names.imagenet import IMAGENET_MEAN, IMAGENET_STD
from piip.zoo.entries import Entry

NANO_RECIPE: dict[str, Any] = {
    "lr": 1e-3,
    "lr_batch_size": None,
    "layer_decay": 1.0,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_iters": 100,
    "batch_size": 2,  # on a CPU many small steps learn more per hour than few large ones
    "grad_clip": 5.0,
    "ema": 0.995,
    "drop_empty": False,  # images without objects, too, are what users gave it to learn from, and small ones
    "drop_smaller": 0,
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


# -- convolutions -----------------------------------------------------------------------------------------------------

CONVNEXT_SIZES = (320, 200, 160)
CONVNEXT_STAGES = ((32, 64, 96, 128), (48, 96, 128, 160), (64, 128, 160, 192))
"""channels of each branch's stages, finest branch first; a stage has one block"""

CONVNEXT_RECIPE: dict[str, Any] = NANO_RECIPE | {"lr": 1.5e-3, "batch_size": 4, "ema": 0.99}


def nano_convnext_backbone(sizes: Sequence[int] = CONVNEXT_SIZES) -> config.Backbone:
    """Three ConvNeXts, which learn from a few hundred images what ViTs need many for, merged after every stage."""
    return config.Backbone(
        branches=nano_convnexts(sizes, CONVNEXT_STAGES),
        interaction=config.Interaction(heads=4, drop_path=0.0),
        maps=config.FeatureMaps(merge_after=(0, 1, 2)),
    )


# -- large images -----------------------------------------------------------------------------------------------------

LARGE_SIZES = (1024, 640, 384)
LARGE_WIDTHS = (64, 128, 192)
LARGE_WINDOW = 16
"""cells of a side: 128 pixels of the finest branch, 341 pixels of the photo in the coarsest"""

# For hundreds of objects, from about 15 to 350 pixels at the least (the anchors' sides are 24 to 192).
LARGE_HEAD = config.MaskRCNN(
    channels=64,
    fc_channels=256,
    anchor_scale=6.0,
    mask_convs=1,
    roi_batch=128,
    proposals=1000,
    proposals_per_level_train=1000,
    proposals_per_level_test=1000,
    detections=300,
)


def nano_large_backbone() -> config.Backbone:
    """Attention in windows in every branch, so that cost is linear in the pixels, with relative positions alone.

    What is learned in a window so holds anywhere in an image of any size; the coarser branches bring the context.
    """
    branches = tuple(
        config.Branch.model_validate({
            "size": size,
            "family": "beit",
            "depth": 4,
            "width": width,
            "heads": width // 32,
            "patch": NANO_PATCH,
            "groups": 4,
            "windows": LARGE_WINDOW,
            "layer_scale": None,
        })
        for size, width in zip(LARGE_SIZES, LARGE_WIDTHS, strict=True)
    )  # fmt: skip
    return config.Backbone(
        branches=branches,
        interaction=config.Interaction(heads=8, drop_path=0.0),
        maps=config.FeatureMaps(strides=(8, 16, 32), unused_level=False),
    )


# -- DINO -------------------------------------------------------------------------------------------------------------

DINO_SIZE = 320

DINO_PATCH = 8
"""small objects of small images need small patches"""

# Three levels (8, 16 and 32 pixels per cell, the last the head's own) instead of four, no wide layers: most of the time
# goes into the finest level.
DINO_HEAD = config.DINO(
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

DINO_RECIPE: dict[str, Any] = {**NANO_RECIPE, "lr": 6e-4, "grad_clip": 1.0}


def nano_dino_backbone() -> config.Backbone:
    """Narrow branches on patches of 8 pixels: maps of 8 and 16 pixels per cell."""
    maps = config.FeatureMaps(strides=(16, 32), unused_level=False)
    return nano_backbone(DINO_SIZE, DINO_PATCH, maps, widths=(64, 96, 128), groups=2)


# -- UperNet ----------------------------------------------------------------------------------------------------------

UPERNET_SIZE = 384

UPERNET_STAGES = ((32, 64, 96, 128), (64, 96, 128, 160), (64, 128, 192, 256))
"""channels of each branch's stages, finest branch first; a stage has one block"""

UPERNET_RECIPE: dict[str, Any] = {
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
        branches=nano_convnexts((UPERNET_SIZE, UPERNET_SIZE * 5 // 8, UPERNET_SIZE // 2), UPERNET_STAGES),
        interaction=config.Interaction(heads=4, drop_path=0.0),
        maps=config.FeatureMaps(merge_after=(0, 1, 2)),
    )


# -- classifier -------------------------------------------------------------------------------------------------------

CLASSIFIER_SIZE = 64
"""twice the side of CIFAR's images, so that the first patches are of 2 x 2 of their pixels"""

CLASSIFIER_STAGES = (
    (CLASSIFIER_SIZE, (32, 64, 96, 128)),
    (CLASSIFIER_SIZE * 3 // 4, (64, 96, 128, 160)),
    (CLASSIFIER_SIZE // 2, (64, 128, 192, 256)),
)
"""image side and width of each stage, finest branch first; a stage has one block"""

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CLASSIFIER_RECIPE: dict[str, Any] = {
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
    branches = nano_convnexts([size for size, _ in CLASSIFIER_STAGES], [widths for _, widths in CLASSIFIER_STAGES])
    return config.Backbone(branches=branches, interaction=config.Interaction(heads=4, drop_path=0.0), maps=None)


# -- the models -------------------------------------------------------------------------------------------------------


def _detector(
    name: str,
    backbone: Callable[[], config.Backbone],
    head: config.MaskRCNN | config.DINO,
    size: int,
    recipe: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> Entry:
    """A detector of images that fit a square of `size` pixels; the classes are COCO's until there is data."""
    return Entry(
        name,
        "detection",
        backbone,
        head=head,
        classes=lambda: tuple(COCO_CLASSES.values()),
        category_ids=tuple(COCO_CLASSES),
        preprocess=config.Preprocess(long_side=size, short_side=size, pad_multiple=32),
        recipe=recipe,
        letters=("nano",) * 3,
        notes=notes,
    )


NANO = (
    # A Mask R-CNN of about 5 million parameters; without masks in the data it trains as Faster R-CNN.
    _detector("piip_nano_mask_rcnn", nano_backbone, NANO_HEAD, NANO_SIZE, NANO_RECIPE),
    # The same with convolutions: more from fewer images, and cost that is linear in the pixels.
    _detector(
        "piip_nano_convnext_mask_rcnn",
        nano_convnext_backbone,
        NANO_HEAD,
        CONVNEXT_SIZES[0],
        CONVNEXT_RECIPE,
        notes=("learns fastest from small data sets, see docs/results.md",),
    ),
    # With windows for large photos: nothing in it grows faster than the pixels.
    _detector(
        "piip_nano_large_mask_rcnn",
        nano_large_backbone,
        LARGE_HEAD,
        LARGE_SIZES[0],
        NANO_RECIPE,
        notes=("for photos of thousands of pixels, see docs/large_images.md",),
    ),
    # A DINO of about 4 million parameters, for boxes; masks in the data are not used.
    _detector("piip_nano_dino", nano_dino_backbone, DINO_HEAD, DINO_SIZE, DINO_RECIPE),
    Entry(
        "piip_nano_upernet",
        "segmentation",
        nano_upernet_backbone,
        head=config.UperNet(channels=64, auxiliary_channels=64),
        classes=lambda: ADE20K_CLASSES,
        preprocess=config.Preprocess(long_side=UPERNET_SIZE, short_side=UPERNET_SIZE, pad_multiple=32),
        recipe=UPERNET_RECIPE,
        letters=("nano",) * 3,
    ),
    # 3.2 million parameters
    Entry(
        "piip_nano_classifier",
        "classification",
        nano_classifier_backbone,
        preprocess=config.Preprocess(
            long_side=CLASSIFIER_SIZE, short_side=CLASSIFIER_SIZE, pad_multiple=1, mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
        classes=lambda: CIFAR_CLASSES,
        head=config.Classifier(separate_head=False),
        recipe=CLASSIFIER_RECIPE,
        letters=("nano",) * 3,
    ),
)
