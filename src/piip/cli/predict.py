"""`piip predict`: pictures and files of what a model finds in images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from piip.cli.options import Device, OfficialModel, Precision, Weights, Window, err, out, weights_path
from piip.console import say


def predict(
    sources: Annotated[list[str], typer.Argument(help="Image files, folders or glob patterns.")],
    weights: Weights,
    output: Annotated[Path, typer.Option(help="Folder for pictures and JSON.")] = Path("runs/predict"),
    conf: Annotated[float, typer.Option(help="Detection: lowest score that counts, 0 to 1.")] = 0.25,
    batch_size: int = 1,
    device: Device = None,
    precision: Precision = "fp32",
    window: Window = None,
    model_name: OfficialModel = None,
) -> None:
    """Predict on images: annotated pictures, and JSON and other files that depend on the model's task."""
    from piip.api import PIIP
    from piip.prediction.files import write_predictions

    model = PIIP(weights_path(weights, model_name), device)
    if window is not None:
        model.use_windows(window or None)
    written = write_predictions(model, sources, output, conf, batch_size, precision)
    for path, reason in written.failures:
        say(err, f"skipped {path}: {reason}", "yellow")
    say(out, f"{written.summary}; pictures and JSON are in {output}")
    if written.failures:
        say(err, f"{len(written.failures)} images could not be read")
        raise typer.Exit(1)
