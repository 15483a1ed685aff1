"""`piip demo`: everything once, on generated data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the data and the run.")] = Path("runs/demo"),
    epochs: Annotated[int | None, typer.Option(help="Fewer are faster and worse.")] = None,
) -> None:
    """Draw a small data set, fine-tune a small Mask R-CNN on it, evaluate it and draw what it finds."""
    from piip.demo import run_demo

    run_demo(output, epochs)
