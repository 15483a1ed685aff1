"""The zoo as people read it: what `piip models` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from piip.profile.published import Count, published_counts
from piip.zoo.entries import Entry, as_dict

METRICS = {
    "detection": (("box_ap", "mask_ap"), "box / mask AP"),
    "segmentation": (("miou",), "mIoU"),
    "classification": (("top1",), "top-1"),
}
CAPTION = (
    "#Param and #FLOPs (multiply-adds, in billions) are the paper's: of the backbone with a classifier's light merge. "
    "`piip info MODEL` also has those of the backbone as it runs, which takes up to twice the computation."
)
DATA = {"detection": "COCO val2017", "segmentation": "ADE20K val", "classification": "ImageNet-1k val"}


def described(entry: Entry) -> dict[str, Any]:
    """What `piip models --json` prints: all that the tables show."""
    count = published_count(entry)
    return as_dict(entry) | {
        "branches": list(entry.letters),
        "licences": entry.licences,
        "counts": {"params_m": round(count.params / 1e6, 3), "gflops": round(count.macs / 1e9, 3)},
    }


def tables(entries: Sequence[Entry]) -> list[Table]:
    """A table per task. Names are never cut; the rest of a model's first column flows below its name."""
    longest = max((len(entry.name) for entry in entries), default=0)
    return [
        _table(task, [entry for entry in entries if entry.task == task], longest)
        for task in METRICS
        if any(entry.task == task for entry in entries)
    ]


def _table(task: str, entries: list[Entry], longest: int) -> Table:
    keys, metric = METRICS[task]
    table = Table(box=None, padding=(0, 1, 0, 0), title=f"{task} ({DATA[task]})", title_justify="left")
    table.add_column("model", min_width=longest, overflow="fold")
    table.add_column("#Param", justify="right", no_wrap=True)
    table.add_column("#FLOPs", justify="right", no_wrap=True)
    table.add_column(metric, justify="right")
    for entry in entries:
        count = published_count(entry)
        published = " / ".join(str(entry.published[key]) for key in keys if key in entry.published)
        name = f"[bold]{entry.name}[/bold]\n[dim]{_branches(entry)}\n{_weights(entry)}[/dim]"
        table.add_row(name, _short(count.params / 1e6, "M"), _short(count.macs / 1e9, "G"), published or "-")
    return table


def _short(number: float, unit: str) -> str:
    """Four digits at most, and two where the number is small."""
    return (
        f"{number:.0f} {unit}" if number >= 1000 else f"{number:.1f} {unit}" if number >= 1 else f"{number:.2g} {unit}"
    )


def published_count(entry: Entry) -> Count:
    """Its parameters and multiply-adds as the paper counts them."""
    backbone = entry.published_backbone()
    size = backbone.branches[0].size
    return sum(published_counts(backbone, (size, size), entry.task == "classification").values(), Count())


def _branches(entry: Entry) -> str:
    return ", ".join(f"{name} {size}" for name, size in zip(entry.letters, entry.image_sizes, strict=True))


def _weights(entry: Entry) -> str:
    licences = entry.licences
    released = licences.pop("checkpoint", None)
    began = ", ".join(f"{label} {licence}" for label, licence in licences.items())
    weights = f"weights {released}" if released else "no weights released"
    return f"{weights}; began as {began}" if began else weights
