"""Where the time of a model goes, part by part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from piip.benchmark.machine import now
from piip.model import PIIPModel


class Stopwatch:
    """Adds up the seconds that functions take, by part. None of the parts may contain another."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time added to `part`."""

        def run(*inputs: Any, **named: Any) -> Any:
            began = now(self.device)
            result = function(*inputs, **named)
            self.seconds[part] += now(self.device) - began
            return result

        return run

    def watch(self, model: PIIPModel) -> None:
        """Put a watch on each part of `model`, for good."""
        backbone = model.backbone
        for index, branch in enumerate(backbone.branches):
            for name in ("embed", "forward"):
                setattr(branch, name, self.timed(f"branch {index}", getattr(branch, name)))
        modules: list[tuple[str, Any]] = [("interactions", stage) for stage in backbone.interactions]
        modules += [("merge", module) for module in (backbone.merge, *backbone.earlier_merges.values())]
        modules += [("maps", backbone.maps), ("neck", model.head.neck)]
        for part, module in modules:
            if module is not None:
                module.forward = self.timed(part, module.forward)

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        seconds, self.seconds = self.seconds, defaultdict(float)
        return seconds
