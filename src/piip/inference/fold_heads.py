"""Inside the heads, and what they share with the backbone."""

from __future__ import annotations

from typing import Any

from torch import nn

from piip.heads.classification import ClassifierHead, MergedLogits
from piip.heads.dino import DINOHead
from piip.heads.mask_rcnn import MaskRCNNHead
from piip.heads.upernet import UperNetHead
from piip.inference.affine import absorb_affine, absorb_batch_norm
from piip.inference.fold_maps import fold_laterals


def fold_head(maps: nn.Module | None, head: nn.Module) -> None:
    """The head, and the maps (of the backbone) that it reads."""
    if isinstance(head, MaskRCNNHead):
        fold_laterals(maps, head.fpn.laterals)
    elif isinstance(head, DINOHead):
        head.label_embedding = None  # helps in training only
        _fold_first_convs(maps, head.mapper.projections)
    elif isinstance(head, UperNetHead):
        _fold_upernet(maps, head)
    elif isinstance(head, ClassifierHead):
        _fold_classifier(head.logits)


def _fold_upernet(maps: Any, head: UperNetHead) -> None:
    head.auxiliary = None  # helps in training only; and it reads a map that may now have the lateral's channels
    for module in list(head.decoder.modules()):
        for part, (name, child) in enumerate(list(module.named_children())):
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and part > 0:
                absorb_batch_norm(module[part - 1], child)  # type: ignore[index]
                setattr(module, name, nn.Identity())
    _fold_first_convs(maps, head.decoder.laterals)


def _fold_first_convs(maps: Any, readers: Any) -> None:
    """As `fold_laterals`, for modules that begin with the 1x1 convolution."""
    convs = nn.ModuleList(reader[0] for reader in readers)
    fold_laterals(maps, convs)
    for reader, conv in zip(readers, convs, strict=False):
        reader[0] = conv


def _fold_classifier(logits: Any) -> None:
    if isinstance(logits, MergedLogits):
        for project in logits.projections:
            if not isinstance(project, nn.GroupNorm):
                absorb_affine(project.norm1, [project.linear])
        absorb_affine(logits.norm, [logits.head])  # the mean over tokens between them is linear too
        return
    for norm, head in zip(logits.norms, logits.heads, strict=True):
        absorb_affine(norm, [head])
