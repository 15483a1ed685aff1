"""`piip val`: a model's metrics on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piip.cli.options import (
    BatchSize,
    DataSet,
    Detections,
    Device,
    Devices,
    ImageSize,
    OfficialModel,
    Overlap,
    Precision,
    Processes,
    Readers,
    Sizes,
    Tiles,
    Views,
    Window,
    image_size_of,
    in_processes,
    ious_of,
    limits_of,
    out,
    sizes_of,
    used,
    views_of,
    weights_path,
)
from piip.console import say

if TYPE_CHECKING:
    from piip import config
    from piip.tasks import Metrics


def val(
    weights: Annotated[
        Path,
        typer.Option(
            help='A run folder, weights, a saved model folder or an exported file; or "official" with --model.'
        ),
    ],
    data: DataSet,
    split: Annotated[str, typer.Option(help='"val", "test" or "train".')] = "val",
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for results, with none of before; default: a new one beside the weights."),
    ] = None,
    batch_size: BatchSize = 1,
    workers: Readers = 2,
    device: Device = None,
    processes: Processes = None,
    devices: Devices = None,
    precision: Precision = "fp32",
    detections: Detections = None,
    tiles: Tiles = None,
    overlap: Overlap = None,
    window: Window = None,
    image_size: ImageSize = None,
    sizes: Sizes = None,
    areas: Annotated[
        str | None,
        typer.Option(help="Detection: limits of sizes of objects, sides in pixels such as 0,16,32,96; AP of each."),
    ] = None,
    iou: Annotated[
        str | None,
        typer.Option(help="Detection: overlaps from which an object counts as found, such as 0.33; AP at each."),
    ] = None,
    intervals: Annotated[bool, typer.Option(help="How far the numbers depend on which images there are.")] = True,
    views: Views = None,
    model_name: OfficialModel = None,
) -> None:
    """Evaluate: the task's metrics, predictions in files, and pictures such as the confusion matrix."""
    in_processes(processes, devices, device)
    from piip.api import PIIP
    from piip.export.exported import is_exported
    from piip.files import free_folder
    from piip.processes import from_main, join, leave
    from piip.weights.files import find_weights

    limits = None if areas is None else limits_of(areas)
    ious = None if iou is None else ious_of(iou)
    if is_exported(weights):
        settled = used(
            device=None if device == "cpu" else device, processes=processes, devices=devices, detections=detections,
            tiles=tiles, overlap=overlap, window=window, image_size=image_size, sizes=sizes, views=views,
            precision=None if precision == "fp32" else precision, batch_size=None if batch_size == 1 else batch_size,
        )  # fmt: skip
        _val_a_file(weights, data, split, output, workers, limits, intervals, ious, settled)
        return
    join(cpu=device == "cpu")
    released = weights_path(weights, model_name)
    home = find_weights(released).parent if released == weights else Path("runs", str(model_name))
    folder = from_main(output or free_folder(home / f"{split}-{data.resolve().name}", "-"))
    size = image_size_of(image_size)
    model = PIIP(released, device)
    if sizes is not None:
        model = model.with_sizes(sizes_of(sizes))
    if views is not None:
        model = model.with_views(views_of(views))
    if window is not None:
        model.use_windows(window or None)
    metrics = model.val(
        data,
        split,
        folder,
        batch_size,
        workers,
        precision,  # type: ignore[arg-type]
        size,
        detections,
        tiles,
        overlap,
        limits,
        intervals,
        ious,
    )
    leave()
    _tell(model.config, metrics, folder)


def _val_a_file(
    path: Path, data: Path, split: str, output: Path | None, workers: int, areas: list[float] | None, intervals: bool,
    ious: list[float] | None, settled: dict[str, Any],
) -> None:  # fmt: skip
    """The same of an exported file; ValueError for what is settled in it."""
    from piip.api.evaluating import evaluate_exported
    from piip.export.exported import load_exported
    from piip.files import free_folder

    if settled:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in settled)
        raise ValueError(f"{path}: an exported file runs as it is, without {names}")
    exported = load_exported(path)
    folder = output or free_folder(path.parent / f"{split}-{data.resolve().name}", "-")
    metrics = evaluate_exported(exported, data, split, folder, workers, areas, intervals, ious)
    _tell(exported.config, metrics, folder)


def _tell(described: config.Model, metrics: Metrics, folder: Path) -> None:
    from piip import tasks

    for table in tasks.of(described).tables(metrics):
        out.print(table)
    say(out, f"metrics, results and pictures are in {folder}")
