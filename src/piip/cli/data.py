"""`piip data check`: what is in a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from piip.cli.options import out
from piip.console import say


def check(
    path: Annotated[Path, typer.Argument(help="Data set: a folder, or a COCO json or CSV file.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="A file to write all findings to.")] = None,
) -> None:
    """Say what is in a data set, what was repaired and what was left out; exit code 1 if there are errors."""
    from piip.files import write_json
    from piip.tasks import check_data

    reports = check_data(path)
    for split, report in reports.items():
        out.print(report.table(split))
    if json_file is not None:
        write_json(json_file, {split: report.to_dict() for split, report in reports.items()}, indent=2)
        say(out, f"written to {json_file}")
    if any(report.errors for report in reports.values()):
        raise typer.Exit(1)
