"""The published detectors with ConvNeXt branches: Mask R-CNN on COCO."""

from __future__ import annotations

from piip import config
from piip.zoo.branches import convnext, deit
from piip.zoo.entries import Entry
from piip.zoo.parts import IMAGENET, detector, figures, pyramid

SIZES = (1024, 672, 448)
REGULAR_MAPS = config.FeatureMaps(merge_after=(0, 1, 10))
"""merged after these groups, instead of upsampled from the last merge"""


def _branch(kind: str, letter: str, size: int) -> config.Branch:
    return convnext(letter, size) if kind == "c" else deit(letter, size, 14)


def _hybrid(kinds: str, published: dict[str, float], released: bool = False) -> Entry:
    """A pyramid of T, S and B; `kinds` says of each, finest first, whether it is a ConvNeXt ("c") or a ViT ("v").

    Trained and tested at 1333 x 800 pixels, that of the configs' base: of most, the lines that would have set 1024 are
    commented out. The published multiply-adds are counted at 1024.
    """
    branches = list(zip(kinds, "tsb", SIZES, strict=True))
    words = [f"{'ConvNeXt' if kind == 'c' else 'ViT'}-{letter.upper()}" for kind, letter, _ in branches]
    joined = "tsb" if kinds == "ccc" else "_".join(f"{kind}{letter}" for kind, letter, _ in branches)
    official = "convnext-tsb" if kinds == "ccc" else "_".join(word.lower() for word in words)
    vit = {"t": "deit", "s": "deit3", "b": "deit3"}
    return detector(
        f"piip_{'convnext_' if kinds == 'ccc' else ''}{joined}_1024_672_448_mask_rcnn",
        f"mask_rcnn_{official}_1024_672_448_regular-fpn",
        lambda: pyramid([_branch(*branch) for branch in branches], REGULAR_MAPS),
        " ".join(words),
        " ".join("convnext" if kind == "c" else vit[letter] for kind, letter, _ in branches),
        {"long_side": 1333, "short_side": 800, "pad_multiple": 32, **IMAGENET},
        published=published,
        recipe={
            "lr": 2e-4,
            "layer_decay": 0.8,
            # The official layer decay does not know the names in a ConvNeXt: all of it learns at the full rate,
            # whatever `skip_stride` says ([1, 3] in four configs, where the 3 is for the ConvNeXt-T).
            "layer_strides": tuple(None if kind == "c" else 1.0 for kind in kinds),
        },
        released=released,
    )


def _baseline() -> config.Backbone:
    """Four groups of blocks, the stages: each gives a map."""
    return config.Backbone(branches=(convnext("b", 1024, single=True),), maps=config.FeatureMaps(merge_after=(0, 1, 2)))


CONVNEXT = (
    detector(
        "convnext_b_1024_mask_rcnn",
        "mask_rcnn_convnext-base_1024_regular-fpn",
        _baseline,
        "ConvNeXt-B",
        "convnext",
        {"long_side": 1024, "pad_multiple": 64},
        published=figures(42.4, 38.7, gflops=321),
        recipe={"layer_decay": 1.0, "decay_all": True},  # the official config names no constructor of groups
        released=False,
    ),
    _hybrid("ccc", figures(46.4, 41.7, gflops=326), released=True),
    _hybrid("cvv", figures(47.1, 42.4, gflops=373)),
    _hybrid("ccv", figures(46.8, 42.2, gflops=431)),
    _hybrid("cvc", figures(46.7, 42.0, gflops=297)),
    _hybrid("vcv", figures(45.4, 40.9, gflops=291)),
    _hybrid("vcc", figures(45.2, 40.7, gflops=231)),
    _hybrid("vvc", figures(44.8, 40.3, gflops=193)),
)
