"""A benchmark's figures as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table


def report(figures: dict[str, Any]) -> Iterator[RenderableType]:
    """The lines and the table of `benchmark`'s result."""
    machine = figures["machine"]
    where = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} threads"
    yield f"{where}; torch {machine['torch']}; float32, random input"
    height, width = figures["input"]
    how = ", ".join([figures["mode"], *(key for key in ("folded", "compiled") if figures[key])])
    yield f"{figures['name']} at {height} x {width}, batch {figures['batch']} ({how})"
    yield f"{figures['seconds']:.3f} s, {figures['images_per_second']:.3g} images/s"
    yield (f"{figures['gmacs']:.1f} G multiply-adds, {figures['rate']:.1f} G/s: {figures['share_of_roof']:.0%} of the "
           f"roof of {figures['roof']:.1f} G/s (matrix product, float32)")  # fmt: skip
    memory = figures["peak_memory_gb"]
    peak = "peak memory unknown" if memory is None else f"peak memory {memory:.2f} GB"
    yield f"{peak} besides weights of {figures['weights_gb']:.2f} GB"
    if figures["parts"]:
        yield _parts(figures)


def _parts(figures: dict[str, Any]) -> Table:
    table = Table("part")
    for column in ("seconds", "share", "G multiply-adds", "of the roof"):
        table.add_column(column, justify="right")
    for part in figures["parts"]:
        gmacs = figures["gmacs_by_part"].get(part["part"], 0.0) * figures["batch"]
        rate = f"{gmacs / part['seconds'] / figures['roof']:.0%}" if gmacs and part["seconds"] else ""
        cells = f"{part['seconds']:.3f}", f"{part['share']:.0%}", f"{gmacs:.1f}" if gmacs else "", rate
        table.add_row(part["part"], *cells)
    return table
