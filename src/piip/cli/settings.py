"""`piip settings`: what a training can be told, with what it would do."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from piip.cli.options import out


def settings(
    word: Annotated[str, typer.Argument(help="Only settings with this in their name or description.")] = "",
    model: Annotated[
        str, typer.Option(help="Whose recipe and head: a name, weights or a YAML file.")
    ] = "piip_nano_mask_rcnn",
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List every setting of a training: `piip train --set KEY=VALUE`, and `train(KEY=VALUE)` in Python."""
    from piip.api import PIIP
    from piip.training.listed import listed, matching

    held = PIIP(model)
    found = matching(listed(held.training_settings("DATA"), held.config.head), word)
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=2, default=str))
        return
    table = Table(
        box=None, padding=(0, 2, 0, 0), title=f"settings, with the values of {held.config.name}", title_justify="left"
    )
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=28)
    table.add_column("what it is", overflow="fold")
    for one in found:
        table.add_row(one.name, _short(one.value), one.text)
    out.print(table, highlight=False)


def _short(value: object) -> str:
    return "none" if value is None else json.dumps(value, default=str).strip('"')
