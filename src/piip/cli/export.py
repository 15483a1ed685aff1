"""`piip export`: a model as a file for another runtime, compared with the model at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from piip.cli.options import OfficialModel, Weights, err, out, weights_path
from piip.console import say

FAILED = 1


def export(
    weights: Weights,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="onnx, openvino or pt2 (torch.export); default: as --output ends, else onnx."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write, never over another; default: beside the weights.")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="Side of the square that the graph takes, or HEIGHTxWIDTH; default: the model's.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch-size", "--batch", help="Images at a time.")] = 1,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Any number of images at a time; not for Mask R-CNN.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in half precision.")] = False,
    part: Annotated[str, typer.Option(help="model, or backbone for its feature maps.")] = "model",
    images: Annotated[
        list[str] | None,
        typer.Option("--images", "--data", help="Images to compare on: files or folders; default: generated ones."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights, an SPDX identifier, kept in the file.")] = None,
    model_name: OfficialModel = None,
) -> None:
    """Export a model to ONNX, OpenVINO or torch.export, and compare the file with the model on real images.

    Exits with 1 if the comparison fails; the file stays.
    """
    from piip.api import PIIP
    from piip.export.exported import RUNTIMES
    from piip.export.write import export as write
    from piip.weights.files import find_weights

    path = weights_path(weights, model_name)
    model = PIIP(path, "cpu")
    if output is None:
        format_ = format_ or "onnx"
        suffix = RUNTIMES[format_].suffix if format_ in RUNTIMES else ""
        output = find_weights(path).with_suffix(suffix)
    done = write(model.model, output, format_, size_of(image_size), batch, dynamic, half, part, licence, images)  # type: ignore[arg-type]
    sizes = ", ".join(f"{file} ({file.stat().st_size / 1e6:.1f} MB)" for file in done.files)
    say(out, f"written: {sizes}")
    say(out, done.check.summary)
    for note in done.check.notes:
        say(err, f"note: {note}", "yellow")
    if not done.check.passed:
        say(err, f"The comparison failed: {'; '.join(done.check.problems)}. The file was kept.", "bold red")
        raise typer.Exit(FAILED)


def size_of(text: str | None) -> int | tuple[int, int] | None:
    """`640` as a side, `480x640` as (height, width); ValueError for anything else."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise ValueError(f"image size {text!r}: use a number of pixels, or HEIGHTxWIDTH such as 480x640")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))
