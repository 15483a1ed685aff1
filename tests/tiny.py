"""Models of the real architecture with tiny widths, for tests."""

from typing import Any

from piip import config

SIZES = (128, 96, 64, 32)
WIDTHS = (32, 64, 96, 128)


def branch(size: int = 128, width: int = 32, **fields: Any) -> config.Branch:
    """Four blocks in two groups, alternately windowed and global."""
    usual = {
        "size": size,
        "depth": 4,
        "width": width,
        "heads": 2,
        "mlp_ratio": 2.0,
        "groups": ((0, 1), (2, 3)),
        "windows": (2, None, 2, None),
        "position_grid": 3,
        "layer_scale": 0.5,
    }
    return config.Branch(**(usual | fields))


def interaction(**fields: Any) -> config.Interaction:
    return config.Interaction(**({"heads": 4, "drop_path": 0.0} | fields))


def backbone(branches: int = 3, maps: config.FeatureMaps | None = None, **fields: Any) -> config.Backbone:
    """1 to 4 branches, finest first; `fields` go to the interaction."""
    return config.Backbone(
        branches=tuple(branch(size, width) for size, width in zip(SIZES[:branches], WIDTHS[:branches], strict=True)),
        interaction=interaction(**fields) if branches > 1 else None,
        maps=maps or config.FeatureMaps(),
    )


def model(branches: int = 2, classes: tuple[str, ...] = ("disc", "square", "star"), **head: Any) -> config.Model:
    """Mask R-CNN."""
    small = {"channels": 16, "fc_channels": 32, "mask_convs": 1, "rpn_batch": 64, "roi_batch": 32, "proposals": 60}
    return config.Model(
        name="tiny",
        backbone=backbone(branches),
        head=config.MaskRCNN(**(small | {"detections": 20} | head)),
        classes=classes,
        preprocess=config.Preprocess(long_side=128, short_side=96, pad_multiple=32),
    )


def classifier(classes: tuple[str, ...] = ("blue", "green", "red")) -> config.Model:
    """Of images of 64 pixels."""
    return config.Model(
        name="tiny",
        backbone=backbone(2).model_copy(update={"maps": None}),
        head=config.Classifier(),
        classes=classes,
        preprocess=config.Preprocess(long_side=64, short_side=64, pad_multiple=32),
    )
