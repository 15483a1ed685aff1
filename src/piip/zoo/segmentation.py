"""The published segmentation models: UperNet on ADE20K."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from piip import config
from piip.data.names.ade20k import ADE20K_CLASSES
from piip.zoo.branches import intern_vit, mae
from piip.zoo.entries import Entry
from piip.zoo.parts import IMAGENET, LEAN, TANH, pyramid, single

HEAD = config.UperNet(channels=1536, auxiliary_channels=1536, window=512, stride=341)
PREPROCESS = config.Preprocess(long_side=2048, long_side_in_tests=False, short_side=512, pad_multiple=1, **IMAGENET)
RECIPE: dict[str, Any] = {
    "lr": 4e-5,
    "lr_batch_size": 16,
    "layer_decay": 0.95,
    "warmup_iters": 1500,
    "warmup_ratio": 1e-6,
    "schedule": "poly",
    "epochs": 63,  # published as 80,000 iterations of 16 of the 20,210 images
}


def _upernet(
    name: str, official: str, backbone: Callable[[], config.Backbone], branches: str, pretraining: str,
    published: tuple[float, float, float],
) -> Entry:  # fmt: skip
    return Entry(
        name=name,
        task="segmentation",
        backbone=backbone,
        preprocess=PREPROCESS,
        classes=lambda: ADE20K_CLASSES,
        head=HEAD,
        official_config=official,
        checkpoint=f"segmentation/{official}.pth",
        published=dict(zip(("params_m", "gflops", "miou"), published, strict=True)),
        recipe=RECIPE,
        pretraining=tuple(pretraining.split()),
        letters=tuple(branches.split()),
    )


def _h6b(coarse: int, published: tuple[float, float, float]) -> Entry:
    """Unlike in detection, positions are stored at each branch's own grid."""

    def backbone() -> config.Backbone:
        fine = mae("h", 512, grid=32, **TANH)
        return pyramid([fine, intern_vit(coarse, grid=coarse // 16, **TANH)], **LEAN)

    return _upernet(
        f"piip_h6b_512_{coarse}_upernet",
        f"upernet_internvit_h6b_{coarse}_512_80k_ade20k_bs16_lr4e-5",
        backbone,
        "ViT-H InternViT-6B",
        "mae intern_vit",
        published,
    )


SEGMENTATION = (
    _upernet(
        "internvit_6b_512_upernet",
        "upernet_internvit_6b_512_80k_ade20k_bs16_lr4e-5",
        lambda: single(intern_vit(512, grid=32, groups=1, **TANH)),
        "InternViT-6B",
        "intern_vit",
        (5910, 6364, 58.42),
    ),
    _h6b(192, (6745, 1663, 57.81)),
    _h6b(256, (6745, 2354, 58.35)),
    _h6b(384, (6746, 4374, 59.32)),
    _h6b(512, (6747, 7308, 59.85)),
)
