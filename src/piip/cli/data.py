"""`piip data check`: what is in a data set. `convert`: the same in another layout. `tile`: cut into tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from piip.cli.options import out
from piip.console import say


def check(
    path: Annotated[Path, typer.Argument(help="Data set: a folder, or an annotation file or table.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="A new file to write all findings to.")] = None,
    task: Annotated[
        str | None, typer.Option(help="detection, segmentation or classification, in a folder that fits several.")
    ] = None,
) -> None:
    """Say what is in a data set, what was repaired and what was left out.

    Exit code 1 if there are errors, or no image that can be used.
    """
    from piip.data.kinds import also_fits, as_task
    from piip.data.report import class_table
    from piip.files import refuse_taken, write_json
    from piip.tasks import check_data

    if json_file is not None:
        refuse_taken([json_file], "name a new file")
    chosen = None if task is None else as_task(task)
    reports = check_data(path, chosen)
    for split, report in reports.items():
        out.print(report.table(split))
    counts = class_table({split: report.class_counts for split, report in reports.items()})
    if counts is not None:
        out.print(counts)
    for note in also_fits(path, chosen):
        say(out, f"note: {note}")
    if json_file is not None:
        write_json(json_file, {split: report.to_dict() for split, report in reports.items()}, indent=2)
        say(out, f"written to {json_file}")
    usable = any(report.images for report in reports.values())
    if not usable:
        say(out, f"{path}: there is no image that can be used")
    if not usable or any(report.errors for report in reports.values()):
        raise typer.Exit(1)


def convert(
    source: Annotated[Path, typer.Argument(help="Data set of any format: a folder, or an annotation file or table.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    to: Annotated[str, typer.Option(help="Layout of objects: coco or yolo.")] = "coco",
    task: Annotated[
        str | None, typer.Option(help="detection, segmentation or classification, in a folder that fits several.")
    ] = None,
) -> None:
    """Write a data set anew in COCO's or YOLO's layout (or as tables, or masks), and say what was left out."""
    from piip.data.conversion import convert_data
    from piip.data.kinds import as_task

    done = convert_data(source, target, to, None if task is None else as_task(task))
    for split, report in done.reports.items():
        out.print(report.table(split))
    say(out, f"written to {done.folder}")


def tile(
    source: Annotated[Path, typer.Argument(help="Data set of objects or masks: a folder, or an annotation file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    size: Annotated[int, typer.Option(help="Side of a tile in pixels of the images.")] = 1024,
    overlap: Annotated[float, typer.Option(help="Share of it that neighbours have in common.")] = 0.2,
    keep: Annotated[float, typer.Option(help="Share of an object's box that must be in a tile.")] = 0.3,
    empty: Annotated[float, typer.Option(help="Share of the tiles that may be without objects; 1: all.")] = 0.1,
    task: Annotated[str | None, typer.Option(help="detection or segmentation, in a folder that fits several.")] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Cut larger files too, of up to so many pixels; needs the extra large.")
    ] = None,
) -> None:
    """Cut large images into tiles, write them with clipped annotations, and say what was left out."""
    from piip.data.kinds import as_task
    from piip.tiles.data_set import tile_data

    done = tile_data(source, target, size, overlap, keep, empty, None if task is None else as_task(task), max_pixels)
    for split, report in done.reports.items():
        out.print(report.table(split))
    say(out, f"written to {done.folder}")
