"""The published classifiers on ImageNet-1k."""

from __future__ import annotations

from typing import Any

from piip import config
from piip.data.names.imagenet import imagenet_classes
from piip.zoo.branches import ARCHITECTURES
from piip.zoo.entries import Entry
from piip.zoo.parts import IMAGENET

DROP_PATH = {"t": 0.05, "s": 0.05, "b": 0.2, "l": 0.4}
"""stochastic depth, more than in the detectors for B"""

RECIPE: dict[str, Any] = {
    "batch_size": 128,  # on each of eight processes; the learning rate is the same for any other number
    "epochs": 20,
    "lr": 3e-5,
    "lr_batch_size": None,
    "layer_decay": 1.0,
    "new_lr_factor": 10.0,
    "branch_head_lr_factor": 1.0,
    "weight_decay": 0.1,
    "decay_all": True,
    "schedule": "cosine",
    "min_lr": 1e-5,
    "warmup_part": 5 / 20,
    "warmup_lr": 1e-6,
    "lr_by_epoch": True,
    "augmentation": {"kind": "classification"},
}
"""the command line of the official README, and what its program makes of it"""


def _branch(letter: str, size: int, augreg: bool) -> config.Branch:
    """A ViT that keeps its class token. AugReg's stored positions have a row for it, which is not used."""
    return config.Branch.model_validate({
        "size": size,
        **ARCHITECTURES[letter],
        "groups": 12,
        "windows": None,
        "position_grid": size // 16,
        "position_prefix": int(augreg),
        "prefix_positions": not augreg,
        "prefix_tokens": 1,
        "drop_path": DROP_PATH[letter],
        "layer_scale": None if augreg else 1.0,
        "checkpointing": True,
    })  # fmt: skip


def _classifier(letters: str, sizes: tuple[int, ...], pretraining: str, published: tuple[float, float, float]) -> Entry:
    augreg = pretraining == "augreg"
    suffix = "augreg" if augreg else "deit1"
    official = f"piip_3branch_{letters}_{'-'.join(map(str, sizes))}_cls_token_{suffix}"

    def backbone() -> config.Backbone:
        branches = [_branch(letter, size, augreg) for letter, size in zip(letters, sizes, strict=True)]
        return config.Backbone(branches=tuple(branches), interaction=config.Interaction(), maps=None)

    return Entry(
        name=f"piip_{letters}_{'_'.join(map(str, sizes))}_classifier",
        task="classification",
        backbone=backbone,
        preprocess=config.Preprocess(long_side=sizes[0], short_side=sizes[0], pad_multiple=1, **IMAGENET),
        classes=lambda: tuple(imagenet_classes().values()),
        head=config.Classifier(),
        official_config=official,
        checkpoint=f"classification/{official}.pth",
        published=dict(zip(("params_m", "gflops", "top1"), published, strict=True)),
        recipe=RECIPE,
        pretraining=(pretraining,) * 3,
        letters=tuple(f"ViT-{letter.upper()}" for letter in letters),
    )


CLASSIFICATION = (
    _classifier("tsb", (368, 192, 128), "deit", (144, 17.4, 82.1)),
    _classifier("sbl", (320, 160, 96), "augreg", (489, 39.0, 85.2)),
    _classifier("sbl", (384, 192, 128), "augreg", (489, 61.2, 85.9)),
)
