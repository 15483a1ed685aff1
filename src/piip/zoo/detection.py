"""The published detectors on plain ViT branches: Mask R-CNN on COCO, baselines, DeiT pyramids, other pretrainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from piip import config
from piip.zoo.branches import ARCHITECTURES, augreg, beitv2, deit, dinov2, mae, mixed_windows, uni_perceiver
from piip.zoo.entries import Entry
from piip.zoo.parts import LEAN, TANH, detector, figures, pyramid, single

# -- DeiT and DeiT III -----------------------------------------------------------------------------------------------

SECOND_VIT_S = (
    "The released four-branch models hold a second ViT-S where the paper, its counts and this name say ViT-T: the "
    "official code builds the finest branch with the next one's arguments. This entry is the released model."
)


def _deit(letters: str, sizes: tuple[int, ...], window: int, published: dict[str, float]) -> Entry:
    """A pyramid of DeiT branches."""

    def backbone(letters: str = letters) -> config.Backbone:
        return pyramid([deit(letter, size, window) for letter, size in zip(letters, sizes, strict=True)])

    joined = "_".join(map(str, sizes))
    entry = detector(
        f"piip_{letters}_{joined}_mask_rcnn",
        f"mask_rcnn_deit_{letters}_{joined}_fpn_1x_coco_bs16",
        backbone,
        " ".join(f"ViT-{letter.upper()}" for letter in letters),
        " ".join("deit" if letter == "t" else "deit3" for letter in letters),
        {"long_side": sizes[0], "pad_multiple": 224},
        published=published,
    )
    if letters != "tsbl":
        return entry
    return replace(entry, backbone=lambda: backbone("ssbl"), paper_backbone=backbone, notes=(SECOND_VIT_S,))


DEIT = (
    _deit("tsb", (1120, 896, 448), 14, figures(43.6, 38.7, 146, 243)),
    _deit("tsb", (1568, 896, 448), 14, figures(45.0, 40.3, 147, 287)),
    _deit("tsb", (1568, 1120, 672), 14, figures(46.5, 41.3, 149, 453)),
    _deit("sbl", (1120, 672, 448), 28, figures(46.5, 40.8, 493, 727)),
    _deit("sbl", (1344, 896, 448), 28, figures(48.3, 42.7, 495, 1002)),
    _deit("sbl", (1568, 896, 672), 28, figures(49.3, 43.7, 497, 1464)),
    _deit("sbl", (1568, 1120, 672), 28, figures(50.0, 44.4)),
    _deit("tsbl", (1344, 896, 672, 448), 28, figures(47.1, 41.9, 506, 755)),
    _deit("tsbl", (1568, 1120, 672, 448), 28, figures(48.2, 42.9, 507, 861)),
    _deit("tsbl", (1792, 1568, 1120, 448), 28, figures(49.4, 44.1, 512, 1535)),
)


# -- single-branch baselines -----------------------------------------------------------------------------------------


def _vit_baseline(letter: str, published: dict[str, float]) -> Entry:
    """Every third block attends globally, the others in windows of 14."""

    def backbone() -> config.Backbone:
        return single(deit(letter, 1024, mixed_windows(14, ARCHITECTURES[letter]["depth"]), groups=1))

    return detector(
        f"vit_{letter}_1024_mask_rcnn",
        f"mask_rcnn_deit_vit_{letter}_fpn_1x_coco_bs16",
        backbone,
        f"ViT-{letter.upper()}",
        "deit3",
        {"long_side": 1024, "pad_multiple": 64},
        published=published,
        recipe={"layer_decay": 0.95},
    )


BASELINES = (
    _vit_baseline("b", figures(43.7, 39.7, 90, 463)),
    _vit_baseline("l", figures(46.7, 42.5, 308, 1542)),
)


# -- PIIP-SBL 1568/1120/672 from other pretrainings ------------------------------------------------------------------

SBL_SIZES = (1568, 1120, 672)


def _sbl(
    variant: str, official: str, backbone: Callable[[], config.Backbone], pretraining: str, published: dict[str, float]
) -> Entry:
    return detector(
        f"piip_sbl_1568_1120_672_mask_rcnn_{variant}",
        f"mask_rcnn_{official}",
        backbone,
        "ViT-S ViT-B ViT-L",
        pretraining,
        {"long_side": 1568, "pad_multiple": 224},
        published=published,
    )


def _augreg_sbl(lean: bool) -> config.Backbone:
    fields = TANH if lean else {}
    branches = [augreg(letter, size, 28, **fields) for letter, size in zip("sbl", SBL_SIZES, strict=True)]
    return pyramid(branches, **(LEAN if lean else {}))


PRETRAINED_SBL = (
    _sbl(
        "augreg",
        "augreg_sbl_1568_1120_672_fpn_1x_coco_bs16",
        lambda: _augreg_sbl(lean=False),
        "augreg augreg augreg",
        figures(48.3, 42.6, 498, 1874),
    ),
    _sbl(
        "augreg_speedup",
        "augreg_sbl_1568_1120_672_fpn_1x_coco_bs16_speedup",
        lambda: _augreg_sbl(lean=True),
        "augreg augreg augreg",
        figures(48.1, 42.4, 470, 1741),
    ),
    _sbl(
        "uni_perceiver",
        "uniperceiver_sbl_1568_1120_672_fpn_1x_coco_bs16",
        lambda: pyramid([deit("s", 1568, 28), uni_perceiver("b", 1120, 28), uni_perceiver("l", 672, 28)]),
        "deit3 uni_perceiver uni_perceiver",
        figures(48.8, 42.9),
    ),
    _sbl(
        "mae",
        "mae_sbl_1568_1120_672_fpn_1x_coco_bs16",
        lambda: pyramid([deit("s", 1568, 28), mae("b", 1120, 28), mae("l", 672, 28)]),
        "deit3 mae mae",
        figures(49.1, 43.0),
    ),
    _sbl(
        "dinov2",
        "dinov2_sbl_1568_1120_672_fpn_1x_coco_bs16",
        lambda: pyramid([dinov2(letter, size, 28) for letter, size in zip("sbl", SBL_SIZES, strict=True)]),
        "dinov2 dinov2 dinov2",
        figures(51.0, 44.7),
    ),
    _sbl(
        "beitv2",
        "beit_sbl_1568_1120_672_fpn_1x_coco_bs16",
        lambda: pyramid([deit("s", 1568, 28), beitv2("b", 1120, 28), beitv2("l", 672, 28)]),
        "deit3 beitv2 beitv2",
        figures(51.8, 45.4),
    ),
)
