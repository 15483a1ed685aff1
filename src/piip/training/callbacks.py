"""A user's own code in a training, at four events: its begin and end, the end of an epoch and of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piip.model import PIIPModel

if TYPE_CHECKING:
    from piip.training.settings import Settings

Row = dict[str, float]


@dataclass(frozen=True)
class Moment:
    """What a callback is told."""

    folder: Path
    """of the run"""
    settings: Settings
    model: PIIPModel
    """the one in training, to be read: what it changes here no checkpoint makes up for"""
    epoch: int
    """of the event, 1-based; at the begin and the end of the training: the epochs that are finished"""
    step: int
    """optimizer steps taken"""
    total_steps: int
    """of the whole run"""
    values: Row
    """at the end of a step its losses, learning rate and norm of the gradients; of an epoch its row of results.csv"""
    main_process: bool
    """of several processes, all of which call, the one that writes files"""
    stop: Callable[[], None]
    """end the training after the next step, or before an evaluation, with a checkpoint, as Ctrl-C does"""


class Callback:
    """Subclass it and define what you need; errors end the training."""

    def on_train_begin(self, moment: Moment) -> None:
        """Before the first step, also of a resumed run."""

    def on_step_end(self, moment: Moment) -> None:
        """After an optimizer step that was taken."""

    def on_epoch_end(self, moment: Moment) -> None:
        """After an epoch and its evaluation."""

    def on_train_end(self, moment: Moment) -> None:
        """After the last step, however the run ended but by an error."""


class Events:
    """Tells callbacks what happens in a run.

    `moment` makes what they are told of an epoch (0: those that are finished, 1: the one being trained) and values.
    """

    def __init__(self, callbacks: Sequence[Callback], moment: Callable[[int, Row], Moment]) -> None:
        self.callbacks, self.moment = callbacks, moment

    def train_begin(self) -> None:
        """See `Callback`, as below."""
        self._tell("on_train_begin", 0)

    def step_end(self, values: Row) -> None:
        """With the values of the step."""
        self._tell("on_step_end", 1, values)

    def epoch_end(self, row: Row) -> None:
        """With the row of results.csv."""
        self._tell("on_epoch_end", 1, row)

    def train_end(self) -> None:
        """However it ended."""
        self._tell("on_train_end", 0)

    def _tell(self, event: str, ahead: int, values: Row | None = None) -> None:
        if self.callbacks:
            moment = self.moment(ahead, dict(values or {}))
            for callback in self.callbacks:
                getattr(callback, event)(moment)
