"""What a model card tells of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from piip.tasks import Data, Metrics
from piip.weights.card import Facts

if TYPE_CHECKING:
    from piip.training.loop import RunResult
    from piip.training.settings import Settings


def facts_of(opened: Mapping[str, Data], result: RunResult, metrics: Metrics | None, settings: Settings) -> Facts:
    """Of the data that was trained and evaluated on, by split, and what the best weights came to."""
    images = {split: len(data.images) for split, data in opened.items()}
    objects = {
        split: sum(len(image.objects) for image in data.images)
        for split, data in opened.items()
        if data.images and hasattr(data.images[0], "objects")
    }
    measured = {} if metrics is None else {name: round(value, 4) for name, value in metrics.scalars().items()}
    epochs = int(result.history[-1]["epoch"]) if result.history else 0
    return Facts(images, objects, epochs, measured, settings.evaluated_in_tiles)
