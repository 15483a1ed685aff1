"""`piip compare`: whether one of two models is better by more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from piip.cli.options import BatchSize, Device, Readers, limits_of, out
from piip.console import say

Judged = Annotated[
    Path, typer.Argument(help="A run folder or weights; or a predictions.json of an evaluation (detection).")
]


def compare(
    first: Judged,
    second: Judged,
    data: Annotated[
        Path | None,
        typer.Option(help="Data set to evaluate both on; default: what both runs ended with, as saved in them."),
    ] = None,
    split: Annotated[str, typer.Option(help='Of --data: "val", "test" or "train".')] = "val",
    areas: Annotated[
        str | None,
        typer.Option(help="Detection: limits of sizes of objects, sides in pixels such as 0,16,32,96; AP of each."),
    ] = None,
    draws: Annotated[int, typer.Option(min=20, help="Draws of as many images, from which intervals come.")] = 1000,
    output: Annotated[Path | None, typer.Option(help="New JSON file for the comparison.")] = None,
    batch_size: BatchSize = 1,
    workers: Readers = 2,
    device: Device = None,
) -> None:
    """Compare two models on the same images: the numbers of both and their differences, with intervals."""
    from piip.api.comparing import compare
    from piip.files import refuse_taken, write_json
    from piip.prediction.files import REMEDY

    if output is not None:
        refuse_taken([output], REMEDY)
    limits = None if areas is None else limits_of(areas)
    found = compare(first, second, data, split, limits, draws, batch_size, workers, device)
    say(out, f"first: {found.first}")
    say(out, f"second: {found.second}")
    for table in found.to_tables():
        out.print(table)
    say(out, found.verdict)
    if output is not None:
        write_json(output, found.to_dict(), indent=2)
        say(out, f"the comparison is in {output}")
