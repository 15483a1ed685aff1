"""AP and AR by size limits of one's own, in files and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from piip.evaluation.averages import Averages
from piip.evaluation.judging import Interval


def sizes_to_dict(part: Averages, classes: Sequence[str]) -> list[dict[str, Any]]:
    """An entry for each range of sizes: sides in pixels, objects, AP and AR, and those of each class."""
    ends = part.size_intervals or (None,) * len(part.sizes)
    return [
        {
            "from": one.sides.low,
            "to": None if math.isinf(one.sides.high) else one.sides.high,
            "objects": sum(one.objects),
            "AP": one.ap,
            "AR": one.ar,
            **({} if end is None else {"AP_interval": end}),
            "classes": [
                {"class": name, "objects": count, "AP": ap, "AR": recall}
                for name, count, ap, recall in zip(classes, one.objects, one.per_class, one.recalls, strict=True)
            ],
        }
        for one, end in zip(part.sizes, ends, strict=True)
    ]


def size_table(part: Averages, classes: Sequence[str], kind: str) -> Table:
    """In percent: a column of AP and AR for each range, a row for all classes and one for each; kind: "box", "mask"."""
    table = Table(title=f"{kind} AP / AR by side in pixels")
    table.add_column("class")
    for one in part.sizes:
        table.add_column(str(one.sides), justify="right")
    ends = part.size_intervals or (None,) * len(part.sizes)
    table.add_row("objects", *(str(sum(one.objects)) for one in part.sizes))
    table.add_row("all", *(f"{percent(one.ap, end)} / {percent(one.ar)}"
                           for one, end in zip(part.sizes, ends, strict=True)))  # fmt: skip
    for label, name in enumerate(classes):
        cells = (f"{percent(one.per_class[label])} / {percent(one.recalls[label])}" for one in part.sizes)
        table.add_row(Text(name), *cells)
    return table


def percent(value: float | None, ends: Interval | None = None) -> str:
    """With its interval, or "-"."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + ("" if ends is None else f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})")
