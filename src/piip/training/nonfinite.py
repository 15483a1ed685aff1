"""A step whose loss or gradient is not finite is left out; three in a row end the run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from piip.structures import Batch
from piip.training.report import Row

IN_A_ROW = 3
STATISTICS = frozenset({"running_mean", "running_var", "num_batches_tracked"})
FREE_AFTERWARDS = frozenset({"lr", "precision", "seed"})
"""settings that may change on resume after a run that ended so, as one of them is the usual cause"""


def statistics_of(model: nn.Module) -> list[Tensor]:
    """Those of its BatchNorms: what a forward pass alone changes."""
    return [buffer for name, buffer in model.named_buffers() if name.rpartition(".")[2] in STATISTICS]


class Counts(Protocol):
    """The part of a run's position that counts such steps."""

    step: int
    nonfinite_in_a_row: int
    skipped_steps: list[dict[str, Any]]


@dataclass
class Step:
    """The batches of one optimizer step so far."""

    statistics: list[tuple[Tensor, Tensor]]
    """the model's, and their values before the step"""
    losses: list[Row] = field(default_factory=list)
    """of each batch, averaged over the processes"""
    images: list[int] = field(default_factory=list)
    """of this process, as in `Batch.indices`"""

    @classmethod
    def after(cls, statistics: Sequence[Tensor]) -> Step:
        """Before its first batch, with the model's `statistics` as the step before left them."""
        return cls([(buffer, buffer.clone()) for buffer in statistics])

    def add(self, batch: Batch, losses: Row) -> None:
        """After a batch's forward pass."""
        self.losses.append(losses)
        self.images.extend(batch.indices)

    def problem(self, norm: float | None) -> str | None:
        """What is not finite, if anything: of a loss, or the gradient's norm, where it counts."""
        for losses in self.losses:
            if not all(map(math.isfinite, losses.values())):
                return "loss (" + ", ".join(f"{name} {value:.4g}" for name, value in losses.items()) + ")"
        return None if norm is None or math.isfinite(norm) else f"gradient (norm {norm})"

    def undo(self) -> None:
        """Let the model forget the step's forward passes. Its gradients are the caller's business."""
        for buffer, before in self.statistics:
            buffer.copy_(before)


def free_afterwards(skipped: Path) -> frozenset[str]:
    """What may change on resume beside the usual, by a run's `skipped.json`."""
    if not skipped.is_file():
        return frozenset()
    in_a_row = json.loads(skipped.read_text(encoding="utf-8")).get("nonfinite_in_a_row", 0)
    return FREE_AFTERWARDS if in_a_row >= IN_A_ROW else frozenset()


def record(at: Counts, epoch: int, problem: str, images: Iterable[str]) -> str:
    """Count a step that is left out; returns a line that says so, with its images by name."""
    at.nonfinite_in_a_row += 1
    listed = list(images)
    at.skipped_steps.append({"epoch": epoch + 1, "step": at.step, "problem": problem, "images": listed})
    return f"step {at.step} of epoch {epoch + 1} left out: its {problem} is not finite; its images: {', '.join(listed)}"


def end_of_run(at: Counts) -> FloatingPointError:
    """The error after `IN_A_ROW` of them, with all that is needed to find the cause."""
    last = at.skipped_steps[-1]
    return FloatingPointError(
        f"{IN_A_ROW} steps in a row were not finite, the last at step {last['step']} (epoch {last['epoch']}): "
        f"{last['problem']}; its images: {', '.join(last['images'])}. The weights from before them are saved and "
        f"unharmed. Usual causes: too high a learning rate, too short a warm-up, fp16, or broken annotations; on "
        f"resume {', '.join(sorted(FREE_AFTERWARDS))} may change"
    )
