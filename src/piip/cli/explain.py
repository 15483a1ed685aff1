"""`piip explain`: what a model loses without each of its parts, and what each branch gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from piip.cli.options import BatchSize, DataSet, Device, OfficialModel, Overlap, Weights, err, out, weights_path
from piip.console import say

if TYPE_CHECKING:
    from piip.explain.ablation import Row


def explain(
    weights: Weights,
    data: DataSet,
    split: Annotated[str, typer.Option(help='"val", "test" or "train".')] = "val",
    parts: Annotated[str, typer.Option(help="Of branches, directions, groups.")] = "branches,directions",
    images: Annotated[int, typer.Option(help="At most so many of the split; 0: all.")] = 200,
    pictures: Annotated[int, typer.Option(help="Images to draw what each branch gives of.")] = 4,
    output: Annotated[Path | None, typer.Option(help="New folder; default: runs/explain, runs/explain2, ...")] = None,
    batch_size: BatchSize = 1,
    device: Device = None,
    tiles: Annotated[
        int | None,
        typer.Option(help="Evaluate in tiles of so many pixels, 0: whole; default: as the training did."),
    ] = None,
    overlap: Overlap = None,
    model_name: OfficialModel = None,
) -> None:
    """Switch off branches, directions of exchange or groups of exchanges one by one, and measure what is lost.

    Writes explain.json as it goes, and pictures of each branch's share of the merged map and of where exchanges look.
    """
    from piip.api import PIIP
    from piip.files import free_folder

    model = PIIP(weights_path(weights, model_name), device)
    folder = free_folder(Path("runs/explain")) if output is None else output
    kinds = tuple(kind.strip() for kind in parts.split(","))
    rows: list[Row] = []
    found = model.explain(data, split, kinds, images or None, batch_size, folder, pictures, tiles, overlap)  # type: ignore[arg-type]
    for row in found:
        rows.append(row)
        say(
            err,
            f"{row.part}: " + ", ".join(f"{name} {value:.3f}" for name, value in row.shown(model.config.task).items()),
        )
    out.print(_table(rows, model.config.task), highlight=False)
    say(out, f"explain.json and pictures are in {folder}")


def _change(value: float, before: float) -> str:
    """In percent, with its sign where it is not zero."""
    change = round(100 * (value - before), 1)
    return f"{change:+.1f}" if change else "0.0"


def _table(rows: list[Row], task: str) -> Table:
    from piip.evaluation.missed import caption

    table = Table(
        box=None, padding=(0, 2, 0, 0), title="without each part: in percent, and the change", title_justify="left",
        caption=caption(tuple(dict.fromkeys(problem for row in rows for problem in row.unreadable))),
        caption_justify="left",
    )  # fmt: skip
    whole = rows[0].shown(task)
    table.add_column("without")
    for name in whole:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        shown = row.shown(task)
        cells = [
            f"{100 * shown[name]:.1f}" + ("" if row.kind is None else f" ({_change(shown[name], whole[name])})")
            if name in shown
            else "-"
            for name in whole
        ]
        table.add_row("nothing (the whole model)" if row.kind is None else row.part, *cells)
    return table
