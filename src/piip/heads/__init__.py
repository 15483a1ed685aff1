"""Feature maps -> losses | predictions: one folder per head, `head` says what all of them have in common."""

from __future__ import annotations

from piip import config
from piip.heads.classification import ClassifierHead
from piip.heads.dino import DINOHead
from piip.heads.head import Head
from piip.heads.mask_rcnn import MaskRCNNHead
from piip.heads.upernet import UperNetHead

HEADS: dict[str, type[Head]] = {
    "mask_rcnn": MaskRCNNHead,
    "dino": DINOHead,
    "upernet": UperNetHead,
    "classifier": ClassifierHead,
}
"""by the `kind` of their configs"""


def build_head(model: config.Model) -> Head:
    """The head that `model.head` describes, with fresh weights."""
    return HEADS[model.head.kind].of(model)


__all__ = ["HEADS", "Head", "build_head"]
