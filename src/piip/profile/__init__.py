"""What a model consists of and costs: parameters and multiply-adds by part, in two conventions.

"published_convention" is how the paper's tables count, "as_run" what the backbone really holds and computes; see
`docs/counting.md`. `published` needs no PyTorch, `measured` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from piip import config


def info(name: str | Path, size: int | tuple[int, int] | None = None) -> dict[str, Any]:
    """What is known of a model by name, or of saved weights by path: see `facts.info`."""
    from piip.profile import facts

    return facts.info(name, size)


def training_memory(name: str | Path, processes: int) -> list[dict[str, float | bool]]:
    """What training it takes on each of several GPUs: see `memory.training_memory`."""
    from piip.profile import memory

    return memory.training_memory(name, processes)


def model_info(model: config.Model, size: int | tuple[int, int] | None = None) -> dict[str, Any]:
    """The same for any config."""
    from piip.profile import facts

    return facts.model_info(model, size)
