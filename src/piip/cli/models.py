"""`piip models`: what there is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from piip.cli.options import out


def models(
    pattern: Annotated[str, typer.Argument(help='Part of a name, or a pattern such as "*tsb*".')] = "*",
    task: Annotated[str | None, typer.Option(help="Only of this: detection, segmentation, classification.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only those with released weights.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List the named models: task, branches, resolutions, counts, published figures, weights and licences."""
    from piip import zoo
    from piip.profile.zoo_table import CAPTION, described, tables

    entries = zoo.matching(pattern, task, pretrained)
    if as_json:
        print(json.dumps([described(entry) for entry in entries], indent=2))
        return
    for table in tables(entries):
        out.print(table)
    out.print(CAPTION, style="dim", highlight=False)
