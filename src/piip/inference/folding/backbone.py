"""The backbone's parts, one after the other."""

from __future__ import annotations

from piip.backbone import PIIPBackbone
from piip.inference.folding.branches import fold_branch
from piip.inference.folding.interactions import fold_interactions
from piip.inference.folding.maps import drop_unused_levels


def fold_backbone(backbone: PIIPBackbone) -> None:
    """Branches, interactions and maps of plain modules; not what the head shares with them."""
    for branch in backbone.branches:
        fold_branch(branch)
    fold_interactions(backbone.interactions)
    if backbone.maps is not None:
        drop_unused_levels(backbone.maps)
