"""What an evaluation after an epoch measures besides the task's own metrics."""

from __future__ import annotations

import math
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch

from piip import config, processes, tasks
from piip.data.batches import eval_loader
from piip.model import PIIPModel
from piip.prediction.options import EVERYTHING, Options
from piip.training.curves import VAL_LOSS
from piip.training.settings import Settings


def check_metric(model: config.Model, name: str | None) -> None:
    """ValueError for what no evaluation of such a model measures."""
    known = (*tasks.of(model).METRICS, VAL_LOSS)
    if name is not None and name not in known:
        near = get_close_matches(name, known, 3)
        raise ValueError(f"best_metric {name!r}: use one of {', '.join(near or known)}")


def in_tiles(settings: Settings) -> Options:
    """How the evaluations of a run predict: as `piip val`, with `--tiles` where the run says so."""
    return replace(EVERYTHING, tiles=settings.evaluated_in_tiles)


class ValidationLoss:
    """The sum of the losses on the validation data, a mean over its batches, without random changes of the images.

    Of images that are evaluated in tiles it is that of one tile of each, the same every time.
    Several processes share the batches, each with the losses that one alone would find.
    What is random in the losses themselves (a detector's choice of proposals) is drawn from the run's seed and the
    batch, so that epochs can be compared; the streams of the training are left as they were.
    """

    def __init__(self, task: tasks.Task, model: config.Model, data: Any, settings: Settings) -> None:
        plain = type(settings.augmentation).none()
        if (side := settings.evaluated_in_tiles) is not None:
            plain = type(plain).model_validate({**plain.model_dump(), "tiles": side})
        dataset = task.training_set(model, data, plain, settings.seed)
        self.seed, self.precision = settings.seed, settings.precision
        self.batches = partial(
            eval_loader,
            dataset,
            settings.batch_size,
            settings.workers,
            pad_multiple=model.preprocess.pad_multiple,
            smallest=model.backbone.smallest_image,
        )

    @torch.no_grad()
    def __call__(self, model: PIIPModel) -> float:
        """Of a model in evaluation mode, on its device; all processes call, and get the same.

        Raises StoppedTogether as an evaluation, see `processes.found_by_all`.
        """
        device, (rank, world) = next(model.parameters()).device, (processes.rank(), processes.count())
        mine: dict[int, float] = {}
        half = torch.bfloat16 if self.precision == "bf16" else torch.float16
        with torch.random.fork_rng(), torch.autocast(device.type, half, enabled=self.precision != "fp32"):
            for number, batch in enumerate(processes.until_asked(self.batches(rank=rank, world=world))):
                if not batch.indices:  # none of its images can be read, which the evaluation says
                    continue
                place = rank + number * world
                torch.manual_seed(self.seed + place)
                with processes.apart():
                    losses = model.loss(batch.to(device))
                mine[place] = float(torch.stack(list(losses.values())).sum())
            found = {place: value for part in processes.found_by_all(mine) for place, value in part.items()}
        return processes.from_main(_mean([found[place] for place in sorted(found)]))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
