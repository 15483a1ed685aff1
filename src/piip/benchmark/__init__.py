"""How fast a model is on this machine, and where its time goes: what `piip benchmark` prints."""

from __future__ import annotations

from piip.benchmark.run import benchmark

__all__ = ["benchmark"]
