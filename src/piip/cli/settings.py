"""`piip settings`: what a training can be told, with what it would do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from piip.cli.options import out

if TYPE_CHECKING:
    from piip.training.listed import Listed

WIDE = 110
"""columns of a terminal in which a table has room for its descriptions"""


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
    title = f"settings, with the values of {held.config.name}"
    if out.width < WIDE:
        _as_list(found, title)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=28)
    table.add_column("what it is", overflow="fold")
    for one in found:
        table.add_row(one.name, _short(one.value), one.text)
    out.print(table, highlight=False)


def _as_list(found: Sequence[Listed], title: str) -> None:
    """Where there is no room for columns: a line for each, and what it is below."""
    out.print(title, style="italic", highlight=False)
    for one in found:
        out.print(f"{one.name}  {_short(one.value)}", style="bold", highlight=False, markup=False)
        out.print(Padding(Text(one.text), (0, 0, 0, 4)), highlight=False)


def _short(value: object) -> str:
    """As in YAML, numbers with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}" if value != int(value) else str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_short, value))}]"
    return "none" if value is None else json.dumps(value, default=str).strip('"')
