"""`piip predict`: pictures and files of what a model finds in images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from piip.cli.options import (
    Detections,
    Device,
    ImageSize,
    OfficialModel,
    Precision,
    Sizes,
    Weights,
    Window,
    err,
    image_size_of,
    out,
    sizes_of,
    weights_path,
)
from piip.console import say

USUAL_FOLDER = Path("runs/predict")


def predict(
    sources: Annotated[list[str], typer.Argument(help="Image files, folders or glob patterns.")],
    weights: Weights,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for pictures and JSON, without results of before, which are never written over; "
            "default: runs/predict, or runs/predict2 and so on where that is taken."
        ),
    ] = None,
    conf: Annotated[float, typer.Option(help="Detection: lowest score that counts, 0 to 1.")] = 0.25,
    batch_size: int = 1,
    device: Device = None,
    precision: Precision = "fp32",
    detections: Detections = None,
    window: Window = None,
    image_size: ImageSize = None,
    sizes: Sizes = None,
    model_name: OfficialModel = None,
) -> None:
    """Predict on images: annotated pictures, and JSON and other files that depend on the model's task.

    Each image is written when it is done: its picture, and a line of predictions.jsonl, from which predictions.json is
    made at the end.
    """
    from piip.api import PIIP
    from piip.files import free_folder
    from piip.prediction.files import write_all
    from piip.prediction.options import Options

    size = image_size_of(image_size)
    options = Options.of(conf=conf, batch_size=batch_size, precision=precision, detections=detections, image_size=size)
    model = PIIP(weights_path(weights, model_name), device)
    if sizes is not None:
        model = model.with_sizes(sizes_of(sizes))
    if window is not None:
        model.use_windows(window or None)
    folder = free_folder(USUAL_FOLDER) if output is None else output
    written = write_all(model.predictor(options.precision), sources, folder, options)
    for path, reason in written.failures:
        say(err, f"skipped {path}: {reason}", "yellow")
    say(out, f"{written.summary}; pictures and JSON are in {folder}")
    if written.failures:
        say(err, f"{len(written.failures)} images could not be read")
        raise typer.Exit(1)
