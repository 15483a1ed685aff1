"""`piip benchmark`: how fast a model is on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from piip.cli.options import Device, show


def benchmark(
    name: Annotated[
        str, typer.Argument(help="Name of a model (random weights), or a path to weights, or an exported file.")
    ],
    size: Annotated[
        int | None, typer.Option("--image-size", "--size", help="Side of the image in pixels; default: as published.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch-size", "--batch", help="Images at a time; default: 1, or an exported file's."),
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="With torch.compile.")] = False,
    train_: Annotated[bool, typer.Option("--train", help="Forward and backward, not inference.")] = False,
    fold: Annotated[bool, typer.Option(help="Fold linear maps for inference, as `predict` does.")] = True,
    rounds: Annotated[int, typer.Option(help="Measurements; medians are printed.")] = 5,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object, see docs/speed.md.")] = False,
) -> None:
    """Measure seconds, multiply-adds, memory and the share of the machine's roof, and where the time goes."""
    from piip.export.exported import is_exported

    if is_exported(name):
        if size is not None or compile_ or train_ or not fold or device not in (None, "cpu"):
            raise ValueError(f"{name}: an exported file is measured as it is, on the CPU: only --batch-size, --rounds")
        figures, lines = _of_a_file(name, batch, rounds)
    else:
        from piip.benchmark import benchmark as measure
        from piip.benchmark.table import report

        figures = measure(name, size, batch or 1, compile_, train_, fold, rounds, device)
        lines = report(figures)
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    show(lines)


def _of_a_file(name: str, batch: int | None, rounds: int) -> tuple[dict[str, Any], Iterable[RenderableType]]:
    from piip.export.speed import benchmark_exported, report

    figures = benchmark_exported(name, batch, rounds)
    return figures, report(figures)
