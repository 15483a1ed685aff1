"""What `piip predict` says while it runs: a line for each of a few images, how far it is with many."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sized
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from piip.cli.options import err, out
from piip.console import say
from piip.prediction.listing import Shard
from piip.prediction.results import AnyResult
from piip.prediction.sources import Failure, Source

FEW = 100
"""images that get a line each"""
EVERY = 30.0
"""seconds between lines about many, where there is no terminal for a bar"""


class Progress:
    """Told of every result as it is written."""

    def __init__(self, images: Iterable[Source], shard: Shard, quiet: bool) -> None:
        self.total = len(range(shard.number - 1, len(images), shard.count)) if isinstance(images, Sized) else None
        self.quiet, self.lines = quiet, self.total is not None and self.total <= FEW
        self.done, self.begun = 0, time.perf_counter()
        self.last = self.said = self.begun
        bar = not quiet and not self.lines and err.is_terminal
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        self.bar = Bar(*columns, console=err) if bar else None

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
            self.bar.add_task("", total=self.total, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def tell(self, outcome: AnyResult | Failure) -> None:
        """Of one image."""
        now = time.perf_counter()
        self.done += 1
        rate = f"{self.done / (now - self.begun):.1f} images/s"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done, rate=rate)
        elif self.lines and not self.quiet:
            self._line(outcome, 1000 * (now - self.last))
        elif not self.quiet and now - self.said > EVERY:
            say(err, f"{self.done} of {self.total or 'unknown'} images, {rate}")
            self.said = now
        self.last = now

    def _line(self, outcome: AnyResult | Failure, milliseconds: float) -> None:
        if isinstance(outcome, Failure):
            return
        count = f"{self.done}/{self.total}"
        say(out, f"{count} {outcome.path}: {outcome.found}, {milliseconds:.0f} ms")
