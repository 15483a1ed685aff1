"""Official image classifiers (OpenGVLab/PIIP): their configs as ours, and our state-dict keys with their names.

An official classifier is a backbone dictionary without a `type`. Its class holds branches and head side by side, so no
name begins with "backbone." there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from piip import config
from piip.data.names.imagenet import IMAGENET_MEAN, IMAGENET_STD, imagenet_classes
from piip.weights.keymap import Rule
from piip.weights.official.branches import Official
from piip.weights.official.configs import backbone_config

DEFAULT_CLASSES = 1000


def is_classifier(official: Official) -> bool:
    """Whether an official dictionary is a classifier's: its `backbone` dictionary, or a whole config that holds one."""
    backbone = official.get("backbone", official)
    return "type" not in official and "type" not in backbone and "branch1" in backbone


def classifier_config(
    official: Official, shapes: Mapping[str, Sequence[int]] | None = None, groups: int | None = None
) -> config.Model:
    """An official classification config as ours.

    Args:
        official: the `backbone` dictionary, or a whole config that holds one.
        shapes: of the weights, by official name, which tell the number of classes; without them, the dictionary's
            `num_classes`, or 1000. The 1000 are taken to be ImageNet's.
        groups: see `official_config.backbone_config`.
    """
    name = str(official.get("name", "official"))
    official = official.get("backbone", official)
    backbone = backbone_config(official, groups)
    separate = bool(official.get("separate_head", "cls_head.weight" not in (shapes or {})))
    size = backbone.branches[0].size
    return config.Model(
        name=name,
        backbone=backbone,
        head=config.Classifier(separate_head=separate, dropout=_dropout(official)),
        classes=_classes(_class_count(official, shapes or {})),
        preprocess=config.Preprocess(
            long_side=size, short_side=size, pad_multiple=1, mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
    )


def classifier_rules(branches: int) -> list[Rule]:
    """The rules for the head; those of the backbone are `official_keys`'s."""

    def branch(match: Any) -> int:
        return branches - int(match[1])  # official branch 1 is our last one

    parts = {"norm1": 0, "linear": 2, "norm2": 4}  # layers without weights stand between them
    return [
        (r"head\.logits\.norms\.(\d)\.(.+)", lambda match: f"branch{branch(match)}.norm.{match[2]}"),
        (r"head\.logits\.heads\.(\d)\.(.+)", lambda match: f"branch{branch(match)}.head.{match[2]}"),
        (r"head\.logits\.weights\.(\d)", lambda match: f"w{branch(match)}"),
        (
            r"head\.logits\.projections\.(\d)\.(norm1|linear|norm2)\.(.+)",
            lambda match: f"merge_branch{branch(match)}.{parts[match[2]]}.{match[3]}",
        ),
        (r"head\.logits\.projections\.(\d)\.(\w+)", lambda match: f"merge_branch{branch(match)}.{match[2]}"),
        (r"head\.logits\.norm\.(.+)", r"cls_norm.\1"),
        (r"head\.logits\.head\.(.+)", r"cls_head.\1"),
    ]


def _dropout(official: Official) -> float:
    """Of the classifier; the official code has one rate per branch, all equal in its configs."""
    return max((value.get("drop_rate", 0.0) for value in official.values() if isinstance(value, dict)), default=0.0)


def _class_count(official: Official, shapes: Mapping[str, Sequence[int]]) -> int:
    for name in ("cls_head.bias", "branch1.head.bias"):
        if name in shapes:
            return int(shapes[name][0])
    return int(official.get("num_classes", DEFAULT_CLASSES))


def _classes(count: int) -> tuple[str, ...]:
    if count == DEFAULT_CLASSES:
        return tuple(imagenet_classes().values())
    return tuple(f"class {label}" for label in range(count))
