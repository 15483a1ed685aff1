"""`piip benchmark`: how fast a model is on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from piip.cli.options import Device, show


def benchmark(
    name: Annotated[str, typer.Argument(help="Name of a model (random weights), or a path to weights.")],
    size: Annotated[int | None, typer.Option(help="Side of the image in pixels; default: as published.")] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 1,
    compile_: Annotated[bool, typer.Option("--compile", help="With torch.compile.")] = False,
    train_: Annotated[bool, typer.Option("--train", help="Forward and backward, not inference.")] = False,
    fold: Annotated[bool, typer.Option(help="Fold linear maps for inference, as `predict` does.")] = True,
    rounds: Annotated[int, typer.Option(help="Measurements; medians are printed.")] = 5,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object, see docs/speed.md.")] = False,
) -> None:
    """Measure seconds, multiply-adds, memory and the share of the machine's roof, and where the time goes."""
    from piip.benchmark import benchmark as measure
    from piip.benchmark.table import report

    figures = measure(name, size, batch, compile_, train_, fold, rounds, device)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    show(report(figures))
