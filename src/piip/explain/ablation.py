"""What a model loses without each of its parts, measured on data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from piip import tasks
from piip.evaluation.missed import missed
from piip.explain.parts import KINDS, Kind, parts_of, switched_off
from piip.model import PIIPModel
from piip.prediction.options import EVERYTHING, Options

SHOWN = {
    "detection": ("box_AP", "box_AP50", "box_APs", "box_APm", "box_APl", "mask_AP"),
    "segmentation": ("mIoU", "pixel_accuracy"),
    "classification": ("top1", "top5"),
}
"""of the metrics, those that tables have"""


@dataclass(frozen=True)
class Row:
    """The metrics without one part, or of the whole model."""

    part: str
    kind: Kind | None
    """None for the whole model"""
    metrics: dict[str, float]
    """as `Metrics.scalars` has them"""
    unreadable: tuple[str, ...] = ()
    """files that they are without, and what is wrong with them"""

    def shown(self, task: str) -> dict[str, float]:
        """Those of `metrics` that a table has."""
        return {name: self.metrics[name] for name in SHOWN[task] if name in self.metrics}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"part": self.part, "kind": self.kind, "metrics": self.metrics, **missed(self.unreadable)}


def ablation(
    model: PIIPModel,
    data: tasks.Data,
    kinds: Sequence[Kind] = KINDS[:2],
    images: int | None = 200,
    batch_size: int = 1,
    workers: int = 0,
    options: Options = EVERYTHING,
) -> Iterator[Row]:
    """The whole model's metrics on `data`, then those without each part, one after the other as they are measured.

    Args:
        model: with whatever weights; they are what they were when this ends, also by an error.
        data: an opened split, see `piip.open_data`.
        kinds: of parts, see `parts_of`; each part takes an evaluation.
        images: at most so many of the data, drawn once and evenly; None: all.
        batch_size: images at a time.
        workers: processes that read images.
        options: how the images are predicted: in tiles, say.

    Raises:
        ValueError: a single-branch model, which has no parts to do without.
    """
    parts = parts_of(model, kinds)
    if not parts:
        raise ValueError(f"{model.config.name} has a single branch: there is nothing to switch off")
    task = tasks.of(model.config)
    some = sample(data, images)

    def measured(part: str, kind: Kind | None) -> Row:
        metrics = task.evaluate(model, some, batch_size, workers, options=options)
        return Row(part, kind, metrics.scalars(), metrics.unreadable)

    yield measured("whole model", None)
    for part in parts:
        with switched_off(part):
            row = measured(part.name, part.kind)
        yield row


def sample(data: tasks.Data, images: int | None) -> tasks.Data:
    """`data` with at most `images` of its images, the same ones each time, in their order."""
    count = len(data.images)
    if images is None or images >= count:
        return data
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:images].sort().values.tolist()
    return replace(data, images=type(data.images)(data.images[index] for index in drawn))
