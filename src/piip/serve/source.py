"""Which model a server's processes load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piip.prediction.options import Precision
    from piip.serve.model import ModelAnswers


@dataclass(frozen=True)
class ModelSource:
    """Which model a process loads, and how it runs. Calling it, in that process, loads; so torch is only there."""

    weights: str | Path
    device: str | None = None
    precision: Precision = "fp32"
    batch: int = 8
    """images per forward pass at most"""
    workers: int = 1
    """processes that share the CPU's cores"""

    def __call__(self) -> ModelAnswers:
        """The loaded model; ValueError and OSError for weights that are none."""
        from piip.serve.model import loaded

        return loaded(self.weights, self.device, self.precision, self.batch, self.workers)
