"""What the model's process does: a batch of images in, answers out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from piip import config
from piip.api import PIIP
from piip.export.exported import Exported, is_exported, load_exported
from piip.pictures.colours import Colour, area_colour, class_colour
from piip.prediction.options import USUAL
from piip.prediction.predictor import Precision, PredictionReport
from piip.prediction.results import AnyResult
from piip.serve.answers import answer_of
from piip.serve.wanted import FORMATS, Answer, Image, Refused
from piip.version import __version__


def loaded(weights: str | Path, device: str | None, precision: Precision, batch: int, workers: int) -> ModelAnswers:
    """The model, ready to answer, see `ModelSource`; ValueError and OSError for weights that are none, or no device."""
    if is_exported(weights):
        return ModelAnswers(_exported(weights, device, precision), {})
    model = PIIP(weights, device)
    if model.device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    return ModelAnswers(model, {"batch_size": batch, "precision": precision})


def _exported(path: str | Path, device: str | None, precision: Precision) -> Exported:
    """Batches, precision and threads are the file's and its runtime's own."""
    if device not in (None, "auto", "cpu") or precision != "fp32":
        raise ValueError(
            f"{path}: an exported file runs on the CPU in its own precision; leave device and precision out"
        )
    return load_exported(path)


class ModelAnswers:
    """A loaded model that answers; `options` of its `predict_report`."""

    def __init__(self, model: PIIP | Exported, options: Mapping[str, Any]) -> None:
        report: Callable[..., PredictionReport] = model.predict_report
        self._predict = partial(report, **options)
        self.facts = facts_of(model)
        self._predict([np.zeros((64, 64, 3), np.uint8)])  # folds, so that the first request need not wait for it

    def __call__(self, images: Sequence[Image]) -> list[Answer | Refused]:
        """An answer for each, in their order. An image that fails takes none of the others with it."""
        try:
            return self._answers(images)
        except Exception as error:
            if len(images) == 1:
                return [Refused(f"{type(error).__name__}: {error}")]
        return [answer for image in images for answer in self([image])]

    def _answers(self, images: Sequence[Image]) -> list[Answer | Refused]:
        began = time.perf_counter()
        least = min(image.wanted.conf for image in images)
        results = self._predict([image.pixels for image in images], conf=least).results
        milliseconds = {"model": 1000 * (time.perf_counter() - began) / len(images)}
        return [self._answer(result, image, milliseconds) for result, image in zip(results, images, strict=True)]

    @staticmethod
    def _answer(result: AnyResult, image: Image, milliseconds: dict[str, float]) -> Answer | Refused:
        try:
            return answer_of(result, image.wanted, milliseconds)
        except Exception as error:
            return Refused(f"{type(error).__name__}: {error}")


def _colour(described: config.Model, label: int) -> Colour:
    return area_colour(label, described.colours) if described.task == "segmentation" else class_colour(label)


def _thresholds(described: config.Model) -> list[float] | None:
    """The score of each class from which an object counts with conf=auto; None where the weights hold none."""
    if described.thresholds is None:
        return None
    return [USUAL if score is None else score for score in described.thresholds]


def facts_of(model: PIIP | Exported) -> dict[str, Any]:
    """What clients and the page know of the model, as `GET /model` gives it."""
    task = model.config.task
    return {
        "name": model.config.name,
        "task": task,
        "classes": list(model.names),
        "colours": [list(_colour(model.config, label)) for label in range(len(model.names))],
        "formats": list(FORMATS[task]),
        "thresholds": _thresholds(model.config),
        "branches": [branch.size for branch in model.config.backbone.branches],
        "version": __version__,
    }
