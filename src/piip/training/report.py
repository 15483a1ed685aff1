"""What a training shows while it runs: progress bar, results.csv, curves, loggers, first batches."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from piip.console import Terminal, say
from piip.files import atomic_write
from piip.structures import Batch
from piip.training.callbacks import Events
from piip.training.curves import VAL_LOSS, headline, plot_curves
from piip.training.folder import RunFolder
from piip.training.trackers import Logger, Trackers

DRAW_SECONDS = 60
"""between two drawings of the curves, which take a third of a second"""
DrawBatch = Callable[[Batch], np.ndarray]
"""a training batch as a picture, [H, W, 3] uint8"""
Row = dict[str, float]
"""Named numbers. An epoch's are "epoch" (1-based), "step", "seconds", "lr", "loss", each loss, each metric."""


class Report:
    """All that is shown and logged of one run; it does nothing unless `active` (on the main process)."""

    def __init__(
        self,
        folder: RunFolder,
        epochs: int,
        steps_per_epoch: int,
        first_step: int,
        active: bool,
        loggers: Sequence[Logger] = ("tensorboard",),
        about: dict[str, Any] | None = None,
        events: Events | None = None,
        best_metric: str | None = None,
    ) -> None:
        self.folder = folder
        self.epochs = epochs
        self.active = active
        self.events, self.best_metric = events, best_metric
        self.drawn = time.monotonic()
        self.console = Terminal(stderr=True, quiet=not active)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("so far,"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("left"),
            TextColumn("{task.fields[losses]}"),
        )
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not active)
        self.task = self.bar.add_task("starting", total=epochs * steps_per_epoch, completed=first_step, losses="")
        self.trackers = Trackers(loggers if active else (), folder, first_step, about or {}, self.note)

    def __enter__(self) -> Report:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        self._draw_curves()
        self.trackers.close()

    def step(self, epoch: int, step: int, values: Row) -> None:
        """After an optimizer step: `values` are its learning rate, gradient norm and losses."""
        if self.events is not None:
            self.events.step_end(values)
        if not self.active:
            return
        losses = "  ".join(
            f"{name.removeprefix('loss_')} {value:.3f}" for name, value in values.items() if "loss" in name
        )
        self.bar.update(self.task, completed=step, description=f"epoch {epoch + 1}/{self.epochs}", losses=losses)
        self.trackers.log({f"step/{name}": value for name, value in values.items()}, step)

    def epoch(self, history: list[Row], metrics: Row) -> None:
        """After an epoch: the whole `history`, whose last row contains `metrics`."""
        if self.events is not None:
            self.events.epoch_end(history[-1])
        if not self.active:
            return
        row = history[-1]
        few = headline([name for name in metrics if name != VAL_LOSS])
        names = dict.fromkeys(("loss", VAL_LOSS, *few, self.best_metric or "loss"))
        shown = "  ".join(f"{name} {row[name]:.3f}" for name in names if name in row)
        say(self.console, f"epoch {row['epoch']:.0f}/{self.epochs}  {shown}  {row['seconds']:.0f} s")
        self.trackers.log({f"epoch/{name}": value for name, value in row.items()}, int(row["step"]))
        write_results(history, self.folder.results)
        if time.monotonic() - self.drawn > DRAW_SECONDS:
            self._draw_curves()

    def draw_batch(self, index: int, batch: Batch, draw: DrawBatch) -> None:
        """A picture of a training batch with its targets, as the network sees it."""
        if self.active:
            Image.fromarray(draw(batch)).save(self.folder.training_batch(index))

    def _draw_curves(self) -> None:
        if not self.active or not self.folder.results.exists():
            return
        self.drawn = time.monotonic()
        try:
            plot_curves(self.folder.results, self.folder.curves, self.best_metric)
        except Exception as error:  # a picture is worth neither a run nor the error that ends one
            self.note(f"the curves could not be drawn: {type(error).__name__}: {error}")

    def note(self, text: str) -> None:
        """One line above the progress bar."""
        say(self.console, text)


def write_results(history: list[Row], path: Path) -> None:
    """Write all epochs as CSV; a column that an epoch lacks (a metric between evaluations) is empty there."""
    columns = dict.fromkeys(name for row in history for name in row)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(history)
