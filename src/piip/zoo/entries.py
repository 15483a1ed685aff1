"""What the zoo knows of one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from piip import config
from piip.zoo.branches import PRETRAININGS, timm_name

CHECKPOINT_LICENCE = "MIT"
"""of the released checkpoints, as their repository states it"""


@dataclass(frozen=True)
class Entry:
    """One row of the zoo."""

    name: str
    task: str
    """"detection", "segmentation" or "classification" """
    backbone: Callable[[], config.Backbone]
    preprocess: config.Preprocess
    classes: Callable[[], tuple[str, ...]]
    head: config.Head
    category_ids: tuple[int, ...] | None = None
    official_config: str | None = None
    """file name of the official config, without `.py`"""
    checkpoint: str | None = None
    """released weights: path in the Hugging Face repository OpenGVLab/PIIP"""
    published: Mapping[str, float] = field(default_factory=dict)
    """the paper's figures: `params_m` and `gflops` (millions of parameters, billions of multiply-adds), `box_ap`,
    `mask_ap`, `miou` or `top1`; not measured by this project"""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """where its training differs from the defaults of `training.settings.Settings`"""
    pretraining: tuple[str, ...] = ()
    """keys of `zoo.branches.PRETRAININGS`: what each branch starts from, finest first"""
    letters: tuple[str, ...] = ()
    """short name of each branch, finest first, such as "ViT-T" """

    paper_backbone: Callable[[], config.Backbone] | None = None
    """what the paper's figures describe, where the released model differs"""
    notes: tuple[str, ...] = ()
    """what a user of this model should know"""

    def published_backbone(self) -> config.Backbone:
        """What the paper's figures describe."""
        return (self.paper_backbone or self.backbone)()

    def config(self) -> config.Model:
        """The model as published (the nano family: with COCO's or CIFAR's classes)."""
        return config.Model(
            name=self.name,
            backbone=self.backbone(),
            head=self.head,
            classes=self.classes(),
            category_ids=self.category_ids,
            preprocess=self.preprocess,
        )

    @property
    def image_sizes(self) -> list[int]:
        """Side in pixels of each branch's image, finest first."""
        return [branch.size for branch in self.backbone().branches]

    def branch_weights(self) -> dict[int, str]:
        """The weights that the published model's branches began as, for `weights.pretrained.load_branches`.

        Raises ValueError where timm does not have them all.
        """
        sources = {}
        for index in range(len(self.pretraining)):
            name = self._timm_name(index)
            if name is None:
                raise ValueError(f"{self.name}: branch {index} began as {self.began_as(index)}, which timm does "
                                 f"not have; give files, for example --branch-weights {index}=FILE.pth")  # fmt: skip
            sources[index] = f"timm:{name}"
        if not sources:
            raise ValueError(f"{self.name}: was not published, so its branches began as nothing")
        return sources

    def began_as(self, index: int) -> str:
        """The pretrained model that a branch of the published one began as, such as "DeiT III ViT-S"."""
        return f"{PRETRAININGS[self.pretraining[index]].label} {self.letters[index]}"

    def published_start(self) -> str:
        """What `piip train --branch-weights` takes to start as published, with FILE for what timm does not have."""
        names = [self._timm_name(index) for index in range(len(self.pretraining))]
        if None not in names:
            return "published"
        return ",".join(f"{index}={f'timm:{name}' if name else 'FILE'}" for index, name in enumerate(names))

    def _timm_name(self, index: int) -> str | None:
        # Classifiers store positions at their own grid, whatever the weights' own; AugReg's are of 224 pixels then.
        grid = self.backbone().branches[index].position_grid if self.task == "detection" else None
        return timm_name(self.pretraining[index], self.letters[index][-1].lower(), grid)

    @property
    def licences(self) -> dict[str, str]:
        """Licence of the released checkpoint (if there is one) and of the weights that its branches began as."""
        known = {"checkpoint": CHECKPOINT_LICENCE} if self.checkpoint else {}
        return known | {PRETRAININGS[key].label: PRETRAININGS[key].licence for key in self.pretraining}


def as_dict(model: Entry) -> dict[str, Any]:
    """The entry as `piip models --json` prints it."""
    return {
        "name": model.name,
        "task": model.task,
        "official_config": model.official_config,
        "image_sizes": model.image_sizes,
        "published": dict(model.published),
        "checkpoint": model.checkpoint,
    }
