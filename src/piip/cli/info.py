"""`piip info`: what a model consists of and what it costs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from piip.cli.options import show


def info(
    name: Annotated[str, typer.Argument(help="Name of a model, a path to weights, or a YAML of your own.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False,
    size: Annotated[
        int | None, typer.Option("--image-size", "--size", help="Side of the image in pixels; default: as published.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Show what training takes on each of so many GPUs, with and without --shard.")
    ] = None,
) -> None:
    """Show a model's branches, parameters and multiply-adds, as the paper counts them and as it runs."""
    from piip import profile
    from piip.profile.table import report

    facts = profile.info(name, size)
    if processes is not None:
        facts |= {"processes": processes, "training_memory": profile.training_memory(name, processes)}
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    show(report(facts))
