"""What families of published models are put together from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from piip import config
from piip.data.names.coco import COCO_CLASSES
from piip.data.names.imagenet import IMAGENET_MEAN, IMAGENET_STD
from piip.zoo.entries import Entry

IMAGENET: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
"""normalisation; the default of `config.Preprocess`, 127.5, is that of most published detectors"""

LEAN: dict[str, Any] = {"projection": False, "norm": "none"}
"""the interactions of the "speedup" models, which go with tanh-approximated GELU in the branches"""
TANH: dict[str, Any] = {"activation": "gelu_tanh"}


def pyramid(
    branches: Sequence[config.Branch], maps: config.FeatureMaps | None = None, **interaction: Any
) -> config.Backbone:
    """Branches, finest first, with the paper's interactions, merge and maps."""
    if maps is None:
        maps = config.FeatureMaps()
    # Of the released models for three-level heads, only those of three branches hold the stride-4 level too.
    maps = maps.model_copy(update={"unused_level": len(branches) == 3})
    return config.Backbone(branches=tuple(branches), interaction=config.Interaction(**interaction), maps=maps)


def single(branch: config.Branch) -> config.Backbone:
    """A single-branch baseline."""
    return config.Backbone(branches=(branch,), maps=config.FeatureMaps(norm="layernorm"))


def short_side(long_side: int) -> int:
    """Limit of the short side in the published recipes."""
    return int(long_side * 0.6 + 0.5)


def detector(
    name: str,
    official: str,
    backbone: Callable[[], config.Backbone],
    branches: str,
    pretraining: str,
    preprocess: dict[str, Any],
    published: dict[str, float] | None = None,
    recipe: dict[str, Any] | None = None,
    released: bool = True,
    head: config.MaskRCNN | config.DINO | None = None,
) -> Entry:
    """A detector on COCO, a Mask R-CNN without a `head`; `branches` and `pretraining`: words, finest branch first."""
    preprocess = {"short_side": short_side(preprocess["long_side"])} | preprocess
    return Entry(
        name=name,
        task="detection",
        backbone=backbone,
        preprocess=config.Preprocess(**preprocess),
        head=head or config.MaskRCNN(),
        classes=lambda: tuple(COCO_CLASSES.values()),
        category_ids=tuple(COCO_CLASSES),
        official_config=official,
        checkpoint=f"detection/{official}.pth" if released else None,
        published=published or {},
        recipe=recipe or {},
        letters=tuple(branches.split()),
        pretraining=tuple(pretraining.split()),
    )


def figures(
    box_ap: float, mask_ap: float | None = None, params_m: float | None = None, gflops: float | None = None
) -> dict[str, float]:
    """Published figures, without those that were not."""
    named = {"params_m": params_m, "gflops": gflops, "box_ap": box_ap, "mask_ap": mask_ap}
    return {key: value for key, value in named.items() if value is not None}
