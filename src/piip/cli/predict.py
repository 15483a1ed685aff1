"""`piip predict`: pictures and files of what a model finds in images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piip.cli.options import (
    BatchSize,
    Detections,
    Device,
    ImageSize,
    OfficialModel,
    Overlap,
    Precision,
    Readers,
    Sizes,
    Tiles,
    Views,
    Weights,
    Window,
    conf_of,
    err,
    image_size_of,
    out,
    sizes_of,
    views_of,
    weights_path,
)
from piip.console import counted, say

if TYPE_CHECKING:
    from piip.prediction.options import Options
    from piip.prediction.predictor import Predictor

FROM_STDIN = "-"


def classes_of(text: str | None) -> list[str] | None:
    """Names, or numbers, with commas between them."""
    return None if text is None else [name.strip() for name in text.split(",")]


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders, glob patterns, lists of paths (.txt, .csv, @FILE), or - for a list that is "
            "piped in; or clips (.mp4, .mov, ...), or the number of a camera."
        ),
    ],
    weights: Weights,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for pictures and JSON, without results of before, which are never written over; "
            "default: runs/predict, or runs/predict2 and so on where that is taken."
        ),
    ] = None,
    conf: Annotated[
        str,
        typer.Option(
            help="Detection: lowest score that counts, 0 to 1; auto: that of the best F1 of each class, as the weights "
            "hold it; or a thresholds.json of an evaluation."
        ),
    ] = "0.25",
    batch_size: BatchSize = 1,
    workers: Readers = 0,
    device: Device = None,
    precision: Precision = "fp32",
    detections: Detections = None,
    tiles: Tiles = None,
    overlap: Overlap = None,
    window: Window = None,
    image_size: ImageSize = None,
    sizes: Sizes = None,
    views: Views = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Read larger files too, of up to so many pixels; needs the extra large.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Of folders, the folders in them too.")] = False,
    pictures: Annotated[bool, typer.Option(help="Annotated pictures; bulk is faster without.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in the output folder.")] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the Ith of N parts of the images, in a folder of its own.")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format", help="Detection: also as csv, yolo, coco, yolo-polygons, coco-polygons, with commas between."
        ),
    ] = "",
    classes: Annotated[
        str | None, typer.Option(help="Detection: only these classes, names or numbers with commas between.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Of a clip: only every so many frames.")] = 1,
    fps: Annotated[
        float | None, typer.Option(help="Folders hold the frames of a clip, so many per second: write a clip of each.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line for each image.")] = False,
    model_name: OfficialModel = None,
) -> None:
    """Predict on images: annotated pictures, and JSON and other files that depend on the model's task.

    Each image is written when it is done: its picture, and a line of predictions.jsonl, from which predictions.json is
    made at the end. Of a clip: NAME.jsonl, a line for each frame, and the annotated NAME.mp4.
    """
    from piip.cli.clips import clips_of, predict_clips, refuse_with_clips
    from piip.cli.progress import Progress
    from piip.export.exported import is_exported
    from piip.files import free_folder
    from piip.prediction.bulk import Keeping, write_all
    from piip.prediction.files import FAILURES, USUAL_FOLDER
    from piip.prediction.listing import Shard, from_lines
    from piip.prediction.options import Options
    from piip.prediction.sources import images_of

    options = Options.of(
        conf=conf_of(conf), batch_size=batch_size, precision=precision, workers=workers, recursive=recursive,
        image_size=image_size_of(image_size), detections=detections, max_pixels=max_pixels,
        classes=classes_of(classes), tiles=tiles, overlap=overlap,
    )  # fmt: skip
    part = Shard() if shard is None else Shard.of(shard)
    if output is None and (resume or shard is not None):
        raise ValueError("--resume and --shard need --output, the folder of the results")
    clips = clips_of(sources, fps)
    if clips is not None:
        refuse_with_clips(resume=resume, shard=shard, format=formats, workers=workers)
    path = weights_path(weights, model_name)
    if is_exported(path):
        predictor = _of_a_file(path, options, device=device, window=window, sizes=sizes, views=views)
    else:
        predictor = _of_a_model(path, options, device, window, sizes, views)
    if clips is not None:
        predict_clips(predictor, clips, output or free_folder(USUAL_FOLDER), options, every, pictures, quiet)
        return
    images = from_lines(sys.stdin) if sources == [FROM_STDIN] else images_of(sources, recursive)
    folder = free_folder(USUAL_FOLDER) if output is None else output
    if shard is not None:
        folder = folder / part.name
    made = tuple(name.strip() for name in formats.split(",") if name.strip())
    keeping = Keeping(
        pictures, resume, part, made, {"weights": str(path), "window": window, "sizes": sizes, "views": views}
    )
    with Progress(images, part, quiet) as progress:
        written = write_all(predictor, images, folder, options, keeping, progress.tell)
    for name, reason in written.failures:
        say(err, f"skipped {name}: {reason}", "yellow")
    what = "pictures and JSON are" if pictures else "JSON is"
    say(out, f"{written.summary}; {what} in {folder}")
    if written.failures:
        listed = folder / f"{FAILURES}.jsonl"
        where = f", see {listed}" if listed.exists() else ""
        say(err, f"{counted(len(written.failures), 'image')} could not be read{where}")
        raise typer.Exit(1)


def _of_a_model(
    path: Path, options: Options, device: str | None, window: int | None, sizes: str | None, views: str | None
) -> Predictor:
    from piip.api import PIIP

    model = PIIP(path, device)
    if sizes is not None:
        model = model.with_sizes(sizes_of(sizes))
    if views is not None:
        model = model.with_views(views_of(views))
    if window is not None:
        model.use_windows(window or None)
    return model.predictor(options.precision)


def _of_a_file(path: Path, options: Options, **settled: object) -> Predictor:
    """The predictor of an exported file; ValueError for what is settled in it."""
    from piip.export.exported import load_exported

    if given := [f"--{name}" for name, value in settled.items() if value not in (None, "cpu")]:
        raise ValueError(f"{path}: an exported file runs as it is, without {', '.join(given)}")
    exported = load_exported(path)
    exported.check_options(options)
    return exported.predictor
