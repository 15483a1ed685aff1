"""`piip convert`: official weights into ours and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from piip.cli.options import out
from piip.console import say


def convert(
    source: Annotated[
        Path, typer.Argument(help="An official .pth or .pt, or DeepSpeed's folder; with --to-official, our weights.")
    ],
    target: Annotated[Path, typer.Argument(help="A new folder; with --to-official, a new .pth file.")],
    official: Annotated[
        Path | None, typer.Option("--config", help="The official config: .py (read, not run), or resolved as .json.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the model instead, see `piip models`, or of an encoder.")
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take the second set of weights, an EMA's.")] = False,
    to_official: Annotated[bool, typer.Option("--to-official", help="Convert ours to the official layout.")] = False,
) -> None:
    """Convert official weights (mmdetection, mmsegmentation, classification, DeepSpeed) to ours, or back."""
    from piip.weights.official import convert as conversion
    from piip.zoo.encoders import list_encoders

    if model in list_encoders() and official is None and not (ema or to_official):
        from piip.weights.encoders import convert_encoder

        count = sum(tensor.numel() for tensor in convert_encoder(source, target, model).parameters())
        say(out, f"{model}: {count / 1e6:.1f} million values, written to {target}")
        return
    if to_official and (official is not None or model is not None or ema):
        raise ValueError("--to-official takes no --config, --model or --ema: our weights hold their config")
    if to_official:
        done = conversion.to_official(source, target)
    else:
        done = conversion.to_ours(source, target, official, model, average=ema)
    values = f"{done.parameters / 1e6:.1f} million values"
    say(out, f"{done.model.name}: {done.tensors} tensors, {values}, written to {done.path}")
    for note in done.notes:
        say(out, f"note: {note}")
