"""What the verbs share: options of several of them, the two consoles, and what options mean together."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from piip.console import Terminal, say

out = Terminal()
err = Terminal(stderr=True)

Device = Annotated[
    str | None, typer.Option(help='"cpu", "cuda", "cuda:1" (or "1") or "mps"; default: a GPU if there is one.')
]
Weights = Annotated[
    Path,
    typer.Option(help='A run folder, a .safetensors file or a saved model folder; or "official", with --model NAME.'),
]
OfficialModel = Annotated[str | None, typer.Option("--model", help="With --weights official: whose released weights.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16.")]
Detections = Annotated[
    int | None,
    typer.Option(
        help="Detection: objects found in an image at most, in tiles in all of it; default: as many as the model keeps."
    ),
]
Processes = Annotated[
    int | None, typer.Option(help="Work in so many processes of this machine, each on a GPU of its own or on the CPU.")
]
Devices = Annotated[str | None, typer.Option(help='Numbers of GPUs, "0,1": a process on each.')]
Tiles = Annotated[
    int | None,
    typer.Option(help="Predict in tiles of so many pixels and join what they show; default: whole images."),
]
BatchSize = Annotated[int, typer.Option(help="Images per forward pass; the results do not depend on it.")]
Readers = Annotated[int, typer.Option(help="Processes that read images beside the model.")]
DataSet = Annotated[Path, typer.Option("--data", help="Data set: a folder, or an annotation file or table.")]
Overlap = Annotated[
    float | None, typer.Option(help="Of tiles: least share of its side that one has in common with the next; 0.2.")
]
Window = Annotated[
    int | None,
    typer.Option(help="Segmentation: side of sliding windows in pixels, 0 for whole images; default: the model's own."),
]

ImageSize = Annotated[
    str | None,
    typer.Option(
        help="Longer side of the network's input in pixels, or \"native\" for images as they are; default: the model's."
    ),
]
Sizes = Annotated[
    str | None,
    typer.Option(help="Another pyramid for the same branches: the side of each, finest first, such as 4000/1120/448."),
]

Views = Annotated[
    str | None,
    typer.Option(
        help="In tiles, what each branch sees, finest first, such as 1,2,image: times the tile, or the whole image."
    ),
]


def image_size_of(text: str | None) -> Any:
    """`--image-size` as Python takes it; ValueError for what is no size."""
    if text is None or text == "native":
        return text
    if not text.isdecimal():
        raise ValueError(f"--image-size {text}: use the longer side in pixels, or native for images as they are")
    return int(text)


def conf_of(text: str) -> Any:
    """`--conf` as Python takes it; ValueError for what is neither a number, auto, nor a file of thresholds."""
    from piip.prediction.least_scores import read_thresholds
    from piip.prediction.options import AUTO

    if text == AUTO:
        return text
    if text.endswith(".json"):
        return read_thresholds(Path(text))
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--conf {text}: use a number from 0 to 1, auto, or a thresholds.json") from None


def sizes_of(text: str) -> list[int]:
    """`--sizes` as numbers; ValueError for what is none."""
    parts = text.replace(",", "/").split("/")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--sizes {text}: use a side in pixels for each branch, finest first, such as 4000/1120/448")
    return [int(part) for part in parts]


def limits_of(text: str) -> list[float]:
    """`--areas` as numbers; ValueError for what is none."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--areas {text}: use sides in pixels with commas between, such as 0,16,32,96") from None


def ious_of(text: str) -> list[float]:
    """`--iou` as numbers; ValueError for what is none."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--iou {text}: use overlaps with commas between, such as 0.33 or 0.3,0.5") from None


def views_of(text: str) -> list[Any]:
    """`--views` as Python takes it; ValueError for what is none."""
    parts = [part.strip() for part in text.replace("/", ",").split(",")]
    try:
        return [part if part == "image" else float(part) for part in parts]
    except ValueError:
        raise ValueError(f"--views {text}: give each branch, finest first, a number from 1 on or image, such as "
                         "1,2,image") from None  # fmt: skip


def in_processes(processes: int | None, devices: str | None, device: str | None) -> None:
    """Where several processes are asked for, run this command in each of them and end as they do."""
    if processes is None and devices is None:
        return
    from piip.training import launch

    wanted = launch.wanted(processes, devices, device)
    if wanted is not None:
        raise typer.Exit(launch.run(["-m", "piip", *sys.argv[1:]], *wanted))


def used(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def weights_path(weights: Path, model: str | None) -> Path:
    """Where the weights are; `model` is for released ones only, all others know theirs."""
    found, unused = official(weights, model)
    if unused is not None:
        raise ValueError(f"--model {unused}: only with --weights official; these weights know their model")
    found = found or weights
    if not found.exists():
        refuse_a_name(found)
    return found


def refuse_a_name(weights: Path) -> None:
    """ValueError where a model's name stands for weights."""
    from piip import zoo

    if (name := str(weights)) not in zoo.MODELS:
        return
    released = f", or take the released ones: --weights official --model {name}" if zoo.entry(name).checkpoint else ""
    raise ValueError(f"{name}: the name of a model, which has no weights of its own; train it (`piip train --model "
                     f"{name} --data DATA`) and give its run's folder{released}")  # fmt: skip


def official(weights: Path | None, model: str | None) -> tuple[Path | None, str | None]:
    """`--weights official --model NAME` as the path of the released weights; anything else as it is."""
    from piip.weights import hub

    if weights is None or str(weights) != hub.OFFICIAL:
        return weights, model
    return hub.resolve(weights, model), None


def show(parts: Iterable[RenderableType]) -> None:
    """Print texts as they are, and tables."""
    for part in parts:
        if isinstance(part, str):
            say(out, part)
        else:
            out.print(part, highlight=False)
