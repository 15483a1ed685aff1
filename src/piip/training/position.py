"""Where a run is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from piip.training.report import Row


@dataclass
class Position:
    """Where a run is, and what it has seen: with the weights and the optimizer, all that a resume needs."""

    epoch: int = 0
    """0-based; the one being trained, or the next"""
    batch: int = 0
    """of the epoch, the next to be read by each process"""
    step: int = 0
    """optimizer steps taken"""
    sums: Row = field(default_factory=dict)
    """of the losses over the epoch's batches so far"""
    seconds: float = 0.0
    """of the epoch so far"""
    best: float | None = None
    best_epoch: int = 0
    """epochs that were finished when `best` was found"""
    history: list[Row] = field(default_factory=list)
    """a row per finished epoch"""
    skipped_batches: int = 0
    """of the epoch so far: those of the steps that were left out"""
    nonfinite_in_a_row: int = 0
    """steps left out since the last one that was taken"""
    skipped_steps: list[dict[str, Any]] = field(default_factory=list)
    """what was left out because it was not finite, see `nonfinite.record`"""
    unreadable: list[str] = field(default_factory=list)
    """images that could not be read, and why"""
    together: int = 0
    """images of one orientation that follow each other: those of a batch of all processes when the run began"""
