"""AP at overlaps of one's own, in files and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from piip.evaluation.averages import Averages
from piip.evaluation.sizes import percent


def overlaps_to_dict(part: Averages, classes: Sequence[str]) -> list[dict[str, Any]]:
    """An entry for each overlap: its IoU, AP, and that of each class."""
    return [
        {
            "iou": one.iou,
            "AP": one.ap,
            **({} if one.interval is None else {"AP_interval": one.interval}),
            "classes": [{"class": name, "AP": ap} for name, ap in zip(classes, one.per_class, strict=True)],
        }
        for one in part.overlaps
    ]


def overlap_table(part: Averages, classes: Sequence[str], kind: str) -> Table:
    """AP in percent: a column for each overlap, a row for all classes and one for each; kind: "box" or "mask"."""
    table = Table(title=f"{kind} AP by IoU")
    table.add_column("class")
    for one in part.overlaps:
        table.add_column(f"{one.iou:g}", justify="right")
    table.add_row("all", *(percent(one.ap, one.interval) for one in part.overlaps))
    for label, name in enumerate(classes):
        table.add_row(Text(name), *(percent(one.per_class[label]) for one in part.overlaps))
    return table
