"""Image classification: class folders or tables in, accuracy out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import RenderableType

from piip import config, processes
from piip.data.batches import eval_loader
from piip.data.classification.augmentation import ClassAugmentation
from piip.data.classification.dataset import ClassificationDataset
from piip.data.classification.images import ClassData, ClassReport, check_classes, open_class_split
from piip.data.classification.splits import find_class_splits
from piip.data.classification.transforms import ClassTestTransform, ClassTrainTransform
from piip.data.decode import decode_for
from piip.data.opening import evaluated
from piip.data.report import DataError
from piip.evaluation import classification as evaluation
from piip.evaluation.classification import ClassMetrics
from piip.evaluation.judging import PLAIN, Judging
from piip.files import write_json
from piip.pictures.probabilities import draw_class_batch, draw_readable_probabilities
from piip.prediction.options import EVERYTHING, Options
from piip.prediction.predictor import Precision, Predictor
from piip.prediction.tiled import refuse_classifier
from piip.structures import Batch, Prediction
from piip.tasks.task import ClassWeights, spread
from piip.tasks.unread import Missing, gathered, without

if TYPE_CHECKING:
    from piip.model import PIIPModel

BEST_METRIC = "top1"
METRICS = ("top1", "top5", "mean_class_accuracy")
"""names of `Metrics.scalars`, as far as they are defined"""
FINE_TUNING: Mapping[str, Any] = {
    "augmentation": {"kind": "classification"},
    "epochs": 20,
    "lr": 3e-5,
    "lr_batch_size": None,
    "layer_decay": 1.0,
    "new_lr_factor": 10.0,
    "weight_decay": 0.1,
    "decay_all": True,
    "schedule": "cosine",
    "min_lr": 1e-5,
    "warmup_part": 5 / 20,
    "warmup_lr": 1e-6,
    "batch_size": 32,
}
"""The released classifiers' fine-tuning for any other: their heads are new, and so learn faster; the learning rate
changes with every step; and there a step has 1024 images"""

open_split = open_class_split


def defaults(described: config.Model) -> Mapping[str, Any]:
    """For a model of any kind."""
    return FINE_TUNING


def check(path: str | Path) -> Mapping[str, ClassReport]:
    """A report per split of the data set at `path`; DataError where there is none."""
    return {str(split): report for split, report in check_classes(path).items()}


def validation_split(path: str | Path) -> ClassData | None:
    """The split that a training is evaluated on: "val", else "test", else None."""
    split = evaluated(find_class_splits(path))
    return None if split is None else open_split(path, split)


def best_metric(val_data: ClassData) -> str:
    """The same for all data."""
    return BEST_METRIC


def in_label_order(described: config.Model, data: ClassData) -> ClassData:
    """`data` with the model's labels; DataError where it has classes that the model does not know."""
    return data if data.classes == described.classes else data.with_classes(described.classes)


def image_paths(data: ClassData, count: int) -> list[Path]:
    """Images from all over `data`."""
    return [data.images[position].path for position in spread(len(data.images), count)]


def draw_annotated(data: ClassData, position: int) -> np.ndarray:
    """The image at `position` with its class, [H, W, 3] uint8."""
    image = data.images[position]
    pixels, _ = decode_for(image.path, lambda size: size)
    return draw_readable_probabilities(pixels, [(image.label, data.classes[image.label], 1.0)])


def adapted(described: config.Model, data: ClassData, class_weights: ClassWeights = None) -> config.Model:
    """`described` for the classes of `data`; DataError if there are not at least two."""
    if class_weights is not None:
        raise ValueError("class_weights are for segmentation; classifiers have none")
    if len(data.classes) < 2:
        raise DataError(f"{data.source}: has only the class {data.classes[0]!r}; there is nothing to tell apart")
    return described.model_copy(update={"classes": data.classes, "category_ids": None, "thresholds": None})


def training_set(
    described: config.Model,
    data: ClassData,
    augmentation: ClassAugmentation,
    seed: int,
    keep_empty: bool = True,
    smallest: int = 0,
) -> ClassificationDataset:
    """`data` as augmented training samples, mixed batch by batch."""
    transform = ClassTrainTransform(described.preprocess, augmentation)
    return ClassificationDataset(in_label_order(described, data), transform, seed, augmentation)


def draw_training_batch(batch: Batch, described: config.Model) -> np.ndarray:
    """A mosaic of images with the classes in their targets, [H, W, 3] uint8."""
    return draw_class_batch(batch, described.preprocess, described.classes)


def predict_all(
    predictor: Predictor, data: ClassData, batch_size: int, workers: int, missing: Missing
) -> Iterator[tuple[int, Prediction]]:
    """(position in `data`, prediction) of every image of this process's share that can be read."""
    dataset = ClassificationDataset(data, ClassTestTransform(predictor.model.config.preprocess))
    multiple, smallest = predictor.padding
    share = (processes.rank(), processes.count())
    loader = eval_loader(dataset, batch_size, workers, *share, pad_multiple=multiple, smallest=smallest)
    for batch in missing.batches(loader):
        yield from zip(batch.indices, predictor.run(batch), strict=True)


def evaluate(
    model: PIIPModel,
    data: ClassData,
    batch_size: int = 1,
    workers: int = 2,
    precision: Precision = "fp32",
    options: Options = EVERYTHING,
    judging: Judging = PLAIN,
) -> ClassMetrics:
    """Accuracy of `model` on `data`, on the model's device."""
    _refuse_tiles(model, options)
    return _measured(model, in_label_order(model.config, data), batch_size, workers, precision, judging).metrics


class _Measured(NamedTuple):
    metrics: ClassMetrics
    predictions: list[Prediction]
    """for all images in the order of `data`, on the main process"""
    data: ClassData
    """the images that could be read"""


def _measured(
    model: PIIPModel, data: ClassData, batch_size: int, workers: int, precision: Precision, judging: Judging
) -> _Measured:
    missing = Missing()
    predictor = Predictor.where_it_is(model, precision)
    mine = dict(predict_all(predictor, data, batch_size, workers, missing))
    shares = processes.found_by_all((mine, missing.reasons))
    reasons = gathered(reasons for _, reasons in shares)
    kept = without(data, reasons)
    metrics, predictions = None, list[Prediction]()
    if processes.rank() == 0:
        found = {index: prediction for share, _ in shares for index, prediction in share.items()}
        predictions = [found[index] for index in sorted(found)]
        metrics = evaluation.evaluate(predictions, kept).with_intervals(judging)
        metrics = replace(metrics, unreadable=tuple(reasons.values()))
    return _Measured(processes.from_main(metrics), predictions, kept)


def evaluate_to_folder(
    model: PIIPModel,
    data: ClassData,
    output: Path,
    batch_size: int = 1,
    workers: int = 2,
    precision: Precision = "fp32",
    options: Options = EVERYTHING,
    judging: Judging = PLAIN,
) -> ClassMetrics:
    """Evaluate and write `metrics.json`, `predictions.json` (five classes per image) and the confusions as PNG."""
    from piip.evaluation.plots import plot_matrix

    _refuse_tiles(model, options)
    data = in_label_order(model.config, data)
    metrics, predictions, data = _measured(model, data, batch_size, workers, precision, judging)
    if processes.rank() > 0:
        return metrics
    output.mkdir(parents=True, exist_ok=True)
    metrics.save(output / "metrics.json")
    write_json(output / "predictions.json", _listed(predictions, data))
    plot_matrix(metrics.confusion, data.classes, output / "confusion_matrix.png")
    return metrics


def _refuse_tiles(model: PIIPModel, options: Options) -> None:
    if options.tiles is not None:
        refuse_classifier(model.config)


def with_thresholds(described: config.Model, metrics: ClassMetrics) -> config.Model:
    """As it is: scores decide nothing."""
    return described


def tables(metrics: ClassMetrics) -> list[RenderableType]:
    """What `piip val` prints."""
    return [metrics.summary_table(), metrics.class_table()]


def _listed(predictions: Iterable[Prediction], data: ClassData) -> list[dict[str, Any]]:
    rows = []
    for prediction, image in zip(predictions, data.images, strict=True):
        values, labels = prediction["probs"].topk(min(evaluation.TOP, len(data.classes)))
        top = [
            {"label": label, "name": data.classes[label], "probability": round(value, 4)}
            for label, value in zip(labels.tolist(), values.tolist(), strict=True)
        ]
        rows.append({"path": str(image.path), "class": data.classes[image.label], "top": top})
    return rows
