"""Parameters and multiply-adds of vision encoders, as the paper's table counts them."""

from __future__ import annotations

from piip import config
from piip.profile.published import Count, published_counts


def encoder_counts(encoder: config.Encoder) -> dict[str, Count]:
    """Counts by part, "branch 0", ..., "interactions", at the published sizes; the projector is not counted.

    The paper's counter takes the samples of all exchanges on the grids of the first one, also where a ConvNeXt's grid
    has become smaller since.
    """
    backbone = encoder.backbone
    parts = published_counts(backbone, (encoder.size, encoder.size))
    counted = {part: count for part, count in parts.items() if part not in ("merge", "head")}
    if backbone.interaction is not None:
        extra = sum(
            5 * (_cells(branch, 0) - _cells(branch, group)) * backbone.interaction.points * branch.group_widths[group]
            for branch in backbone.branches
            for group in range(backbone.groups)
        )
        counted["interactions"] += Count(macs=extra)
    return counted


def _cells(branch: config.Branch, group: int) -> int:
    cells: int = (branch.size // branch.group_strides[group]) ** 2
    return cells
