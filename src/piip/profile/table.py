"""A model's facts as people read them: what `piip info` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

LABELS = {
    "params_m": "million parameters",
    "gflops": "billion multiply-adds",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "miou": "mIoU",
    "top1": "top-1",
}
"""of `zoo.Entry.published`"""

HALF_STORED = (
    ": --precision fp32 predicts in float32, on a copy of twice the file's size; bf16 and fp16 run the backbone on the "
    "weights as they are, and the head in float32"
)


def report(facts: dict[str, Any]) -> Iterator[RenderableType]:
    """The tables and lines of `profile.info`'s result."""
    yield _branches(facts)
    yield _counts(facts)
    if "training_memory" in facts:
        yield _memory(facts)
    yield "as published: the paper's way of counting, with a classifier's light merge; as run: what the backbone does"
    if published := facts.get("published"):
        yield "published: " + ", ".join(f"{LABELS[key]} {value:g}" for key, value in published.items())
    for key in ("official_config", "checkpoint"):
        if facts.get(key):
            yield f"{key.replace('_', ' ')}: {facts[key]}"
    if licences := facts.get("licences"):
        yield "licences: " + ", ".join(f"{label} {licence}" for label, licence in licences.items())
    if stored := facts.get("stored_precision"):
        yield f"stored in {' and '.join(stored)}" + (HALF_STORED if set(stored) & {"float16", "bfloat16"} else "")
    for note in facts.get("notes", ()):
        yield f"note: {note}"


def _branches(facts: dict[str, Any]) -> Table:
    table = Table("branch", "image", "depth", "width", "began as", title=Text(f"{facts['name']} ({facts['task']})"))
    for index, branch in enumerate(facts["branches"]):
        name = branch.get("name") or branch["model"] or branch["family"]
        sizes = (str(branch[key]) for key in ("size", "depth", "width"))
        table.add_row(f"{index} {name}", *sizes, branch.get("pretraining", "-"))
    return table


def _memory(facts: dict[str, Any]) -> Table:
    title = f"GB on each of {facts['processes']} GPUs in training (float32), without activations"
    columns = ("weights", "gradients", "optimizer", "average", "held", "gathered")
    table = Table("", *columns, title=title)
    for row in facts["training_memory"]:
        table.add_row("--shard" if row["sharded"] else "whole", *(f"{row[column]:.1f}" for column in columns))
    return table


def _counts(facts: dict[str, Any]) -> Table:
    height, width = facts["input"]
    table = Table(title=f"parameters and multiply-adds at {height} x {width}")
    table.add_column("part")
    for column in ("published", "", "as run", ""):
        table.add_column(column, justify="right")
    for part in facts["parts"]:
        _add(table, part["part"], part["published_convention"], part["as_run"])
    table.add_section()
    _add(table, "backbone", facts["published_convention"], facts["as_run"])
    if facts["whole_model"] is not None:
        _add(table, "with head", None, facts["whole_model"])
    return table


def _add(table: Table, name: str, *columns: dict[str, float] | None) -> None:
    cells = []
    for numbers in columns:
        cells += ["", ""] if numbers is None else [f"{numbers['params'] / 1e6:.1f} M", f"{numbers['gmacs']:.1f} G"]
    table.add_row(name, *cells)
