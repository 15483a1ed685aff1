"""The contract of a task: what training, evaluation, prediction and the command line ask of it.

A task is a module (`detection`, `segmentation`, `classification`) with these functions and constants. `Data` stands for
what the task's own `open_split` returns and the others take; nothing else looks into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from rich.console import RenderableType

from piip import config
from piip.evaluation.judging import PLAIN, Judging
from piip.prediction.options import EVERYTHING, Options
from piip.structures import Batch

if TYPE_CHECKING:
    from piip.model import PIIPModel
    from piip.prediction.predictor import Precision

Data = Any
"""one opened split of a data set of the task's kind"""
ClassWeights = Sequence[float] | Literal["balanced"] | None
"""one number per class, or larger ones for rare classes"""


def spread(total: int, count: int) -> list[int]:
    """Positions of `count` of `total` images from all over the list, whose neighbours are often frames of one scene.

    >>> spread(48, 8), spread(3, 8)
    ([0, 6, 12, 18, 24, 30, 36, 42], [0, 1, 2])
    """
    step = max(1, total // count)
    return list(range(total))[::step][:count]


class Metrics(Protocol):
    """What an evaluation measured."""

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Files that could not be read when their turn came, without which it is, and what is wrong with them."""

    def scalars(self) -> dict[str, float]:
        """Named numbers for results.csv, `BEST_METRIC` among them if it is defined; larger is better."""

    def save(self, path: Path) -> object:
        """Write all that was measured as JSON."""


class Report(Protocol):
    """What a check found in one split."""

    images: int
    """that can be used"""
    class_counts: dict[str, int]

    @property
    def errors(self) -> int:
        """Cases that must be mended before training means anything."""

    def table(self, title: str) -> RenderableType:
        """For the terminal."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""


class Task(Protocol):
    """See the module."""

    @property
    def BEST_METRIC(self) -> str:  # noqa: N802 - a constant of the module
        """The metric that usually decides which epoch's weights are the best."""

    @property
    def METRICS(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """All that an evaluation may measure."""

    def defaults(self, described: config.Model) -> Mapping[str, Any]:
        """Where training such a model differs from the defaults of `Settings`, unless its recipe says more."""

    # -- data

    def open_split(self, path: str | Path, split: str) -> Data:
        """The checked data of one split ("train", "val" or "test"); DataError names the splits there are."""

    def validation_split(self, path: str | Path) -> Data | None:
        """The split that a training is evaluated on: "val", else "test", else None."""

    def best_metric(self, val_data: Data) -> str:
        """What decides which epoch of a new training is the best: `BEST_METRIC`, or what fits the data better."""

    def check(self, path: str | Path) -> Mapping[str, Report]:
        """A report per split; DataError where no data set is found."""

    def in_label_order(self, described: config.Model, data: Data) -> Data:
        """`data` with the labels of `described`; DataError where it has classes that the model does not know."""

    def image_paths(self, data: Data, count: int) -> list[Path]:
        """Some images of `data`, to draw predictions on: those at `spread`."""

    def draw_annotated(self, data: Data, position: int) -> np.ndarray:
        """The annotation of the image at `position`, drawn on it, [H, W, 3] uint8; ImageError if it cannot be read."""

    # -- training

    def adapted(self, described: config.Model, data: Data, class_weights: ClassWeights = None) -> config.Model:
        """`described` for the classes of `data`; `class_weights` as in `Settings`."""

    def training_set(
        self,
        described: config.Model,
        data: Data,
        augmentation: Any,
        seed: int,
        keep_empty: bool = True,
        smallest: int = 0,
    ) -> Any:
        """A data set of augmented samples by (epoch, index), each with `image`, `target`, `original_size`, `index`.

        `data.batches.collate` makes batches of them; the head takes the targets as they are.
        `keep_empty`: images without objects, too, in detection; `smallest`: only those whose sides have as many pixels.
        """

    def draw_training_batch(self, batch: Batch, described: config.Model) -> np.ndarray:
        """What the network is trained on: a mosaic of images with their targets, [H, W, 3] uint8."""

    # -- evaluation

    def evaluate(
        self,
        model: PIIPModel,
        data: Data,
        batch_size: int = 1,
        workers: int = 2,
        precision: Precision = "fp32",
        options: Options = EVERYTHING,
        judging: Judging = PLAIN,
    ) -> Metrics:
        """Measure `model` on `data`, on the model's device; `options` say how many objects and in which tiles.

        `judging`: what to measure beyond the usual numbers.

        Several processes (`piip.processes`) share the images and all get the metrics; StoppedTogether if one of them
        was asked to stop. Images that cannot be read are left out and named in the metrics; DataError where most are.
        """

    def evaluate_to_folder(
        self,
        model: PIIPModel,
        data: Data,
        output: Path,
        batch_size: int = 1,
        workers: int = 2,
        precision: Precision = "fp32",
        options: Options = EVERYTHING,
        judging: Judging = PLAIN,
    ) -> Metrics:
        """Evaluate and write metrics, predictions and pictures into `output`, which several processes see."""

    def with_thresholds(self, described: config.Model, metrics: Any) -> config.Model:
        """`described` with what an evaluation of it found out about its scores, for its weights to hold."""

    def tables(self, metrics: Any) -> list[RenderableType]:
        """What `piip val` prints."""
