"""Seconds of a pyramid on this machine, from one that was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from piip.benchmark import benchmark
from piip.designs.cost import Cost, cost_of
from piip.designs.parts import Pyramid, models_of
from piip.designs.written import text_of

ROUNDS = 3
"""measurements, of which the median counts"""
CALIBRATION_SIZES = (640, 320)
"""pixels of the pyramid that is measured first, of the two smallest models"""


@dataclass(frozen=True)
class Rates:
    """Seconds for one image."""

    per_branch_mac: float
    """of branches and exchanges"""
    per_map_mac: float
    """of merge and maps"""
    per_cell: float
    """of the finest branch: neck and head"""

    def price(self, pyramid: Pyramid, cost: Cost) -> float:
        """Estimated seconds."""
        cells = (pyramid.sizes[0] // pyramid.models[0].patch) ** 2
        return self.per_branch_mac * cost.branches + self.per_map_mac * cost.maps + self.per_cell * cells

    def corrected(self, ratio: float) -> Rates:
        """All times `ratio`."""
        return replace(self, **{name: ratio * value for name, value in vars(self).items()})


def measured_seconds(pyramid: Pyramid, head: str, device: str | None) -> tuple[float, dict[str, float]]:
    """Median seconds of an image from the network's input to predictions, with random weights; and those by part."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "measured.yaml"
        path.write_text(text_of(pyramid, head, False), encoding="utf-8")
        figures = benchmark(path, rounds=ROUNDS, device=device)
    return figures["seconds"], {part["part"]: part["seconds"] for part in figures["parts"]}


def calibrated(family: str, head: str, strides: tuple[int, ...], device: str | None) -> Rates:
    """Rates from one small pyramid of this family."""
    models = models_of(family)[:2]
    step = 2 * models[0].patch
    pyramid = Pyramid(models, tuple(size // step * step for size in CALIBRATION_SIZES))
    cost = cost_of(pyramid, strides)
    total, parts = measured_seconds(pyramid, head, device)
    branches = sum(seconds for part, seconds in parts.items() if part.startswith(("branch", "interaction")))
    maps = sum(parts.get(part, 0.0) for part in ("merge", "maps"))
    cells = (pyramid.sizes[0] // models[0].patch) ** 2
    return Rates(branches / cost.branches, maps / cost.maps, max(0.0, total - branches - maps) / cells)
