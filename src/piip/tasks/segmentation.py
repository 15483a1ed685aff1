"""Semantic segmentation: images with label masks in, mean intersection over union out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic
import torch
from rich.console import RenderableType

from piip import config, processes
from piip.config.errors import problems
from piip.data.batches import eval_loader
from piip.data.opening import evaluated
from piip.data.segmentation.augmentation import CropAugmentation
from piip.data.segmentation.dataset import SegmentationDataset
from piip.data.segmentation.folders import find_mask_splits
from piip.data.segmentation.masks import MaskData, MaskReport, check_masks, load_pair, open_masks
from piip.data.segmentation.transforms import MaskTestTransform, MaskTrainTransform
from piip.data.transforms import size_in_tests
from piip.evaluation import segmentation as evaluation
from piip.evaluation.judging import PLAIN, Judging
from piip.evaluation.segmentation import SegmentationMetrics
from piip.files import numbered
from piip.pictures.label_map import draw_label_batch, draw_readable_labels
from piip.prediction.label_map import SegmentationResult
from piip.prediction.options import EVERYTHING, Options
from piip.prediction.predictor import Precision, Predictor
from piip.prediction.sources import InParts, Opened
from piip.structures import Batch, Prediction
from piip.tasks.read_ahead import photos_of_share
from piip.tasks.task import ClassWeights, spread
from piip.tasks.unread import Missing, gathered, without

if TYPE_CHECKING:
    from piip.model import PIIPModel

BEST_METRIC = "mIoU"
METRICS = ("mIoU", "pixel_accuracy", "mean_accuracy")
"""names of `Metrics.scalars`, as far as they are defined"""
BALANCED_RANGE = (0.5, 5.0)
"""least and largest weight that `balanced_weights` gives"""

open_split = open_masks


def defaults(described: config.Model) -> Mapping[str, Any]:
    """For a model of any kind."""
    return {"augmentation": {"kind": "segmentation"}, "schedule": "poly"}


def check(path: str | Path) -> Mapping[str, MaskReport]:
    """A report per split of the data set at `path`; DataError where there is none."""
    return {str(split): report for split, report in check_masks(path).items()}


def validation_split(path: str | Path) -> MaskData | None:
    """The split that a training is evaluated on: "val", else "test", else None."""
    split = evaluated(find_mask_splits(path))
    return None if split is None else open_split(path, split)


def best_metric(val_data: MaskData) -> str:
    """The same for all data."""
    return BEST_METRIC


def in_label_order(described: config.Model, data: MaskData) -> MaskData:
    """`data` with the model's labels; DataError where it has classes that the model does not know."""
    return data.with_classes(described.classes)


def image_paths(data: MaskData, count: int) -> list[Path]:
    """Images from all over `data`."""
    return [data.images[position].path for position in spread(len(data.images), count)]


def draw_annotated(data: MaskData, position: int) -> np.ndarray:
    """The image at `position` under the colours of its annotated classes, with a legend, [H, W, 3] uint8."""
    pair = load_pair(data.images[position], data.description)
    return draw_readable_labels(*pair, data.classes, data.description.colours)


# -- training


def adapted(described: config.Model, data: MaskData, class_weights: ClassWeights = None) -> config.Model:
    """`described` for the classes of `data`; `class_weights`: None, one number per class, or "balanced"."""
    assert isinstance(described.head, config.UperNet)
    if class_weights == "balanced":
        class_weights = balanced_weights(data)
    if class_weights is not None and len(class_weights) != len(data.classes):
        raise ValueError(f"{len(class_weights)} class_weights for the {len(data.classes)} classes of the data")
    head = described.head.model_copy(update={"class_weights": class_weights and tuple(class_weights)})
    told = data.description
    update = {"head": head, "classes": told.classes, "category_ids": told.values, "colours": told.colours}
    return described.model_copy(update=update)


def balanced_weights(data: MaskData) -> tuple[float, ...]:
    """Larger weights for rare classes: the root of the median frequency over the class's, within `BALANCED_RANGE`.

    A class's frequency is its share of the pixels of those images that have it. The root keeps the frequent classes
    from being given up for the rare ones.
    """
    frequency = np.array(data.pixels) / np.maximum(data.containing, 1)
    median = np.median(frequency[frequency > 0])
    weights = np.sqrt(median / np.where(frequency > 0, frequency, median)).clip(*BALANCED_RANGE)
    return tuple(round(weight, 4) for weight in weights.tolist())


def training_set(
    described: config.Model,
    data: MaskData,
    augmentation: CropAugmentation,
    seed: int,
    keep_empty: bool = True,
    smallest: int = 0,
) -> SegmentationDataset:
    """`data` as augmented training samples."""
    return SegmentationDataset(
        data, MaskTrainTransform(described.preprocess, augmentation, described.backbone.views), seed
    )


def draw_training_batch(batch: Batch, described: config.Model) -> np.ndarray:
    """A mosaic of images with their labels and a legend, [H, W, 3] uint8."""
    return draw_label_batch(batch, described.preprocess, described.classes, described.colours)


# -- evaluation


def predict_all(
    predictor: Predictor,
    data: MaskData,
    batch_size: int,
    workers: int,
    options: Options = EVERYTHING,
    missing: Missing | None = None,
) -> Iterator[tuple[int, np.ndarray, Prediction]]:
    """(position in `data`, annotated labels, prediction) of every image of this process's share.

    Those of one padded size come together; with `options.tiles` one image after the other, in tiles. Images that cannot
    be read are noted in `missing`.
    """
    missing = missing or Missing()
    if options.tiles is not None:

        def load(index: int) -> tuple[np.ndarray, np.ndarray]:
            return load_pair(data.images[index], data.description)

        for index, (pixels, annotated) in photos_of_share(load, len(data.images), workers, missing):
            photo = InParts.of(Opened.of(data.images[index].path, pixels))
            whole = predictor.in_tiles(photo, replace(options, batch_size=batch_size))
            assert isinstance(whole, SegmentationResult)
            found = {"labels": torch.from_numpy(whole.labels), "scores": torch.from_numpy(whole.scores)}
            yield index, annotated, found
        return
    preprocess = predictor.model.config.preprocess
    dataset = SegmentationDataset(data, MaskTestTransform(preprocess))
    sizes = [size_in_tests(image.size, preprocess) for image in data.images]
    multiple, smallest = predictor.padding
    share = (processes.rank(), processes.count())
    loader = eval_loader(dataset, batch_size, workers, *share, pad_multiple=multiple, smallest=smallest, sizes=sizes)
    for batch in missing.batches(loader):
        for index, labels, prediction in zip(batch.indices, batch.targets, predictor.run(batch), strict=True):
            yield index, labels.numpy(), prediction


def evaluate(
    model: PIIPModel,
    data: MaskData,
    batch_size: int = 1,
    workers: int = 2,
    precision: Precision = "fp32",
    options: Options = EVERYTHING,
    judging: Judging = PLAIN,
) -> SegmentationMetrics:
    """Overlap of `model`'s labels with those of `data`, at the images' own size, on the model's device."""
    data = in_label_order(model.config, data)
    predictor = Predictor.where_it_is(model, precision)
    missing = Missing()
    found = predict_all(predictor, data, batch_size, workers, options, missing)
    places: list[int] = []

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index, labels, prediction in found:
            places.append(index)
            yield labels, prediction["labels"].numpy()

    return _of_all(evaluation.evaluate(pairs(), data.classes), data, places, missing, judging)


def _of_all(
    mine: SegmentationMetrics, data: MaskData, places: list[int], missing: Missing, judging: Judging
) -> SegmentationMetrics:
    """The metrics of all processes' images, in the order of the data; `places` are those of this one's.

    DataError where most images could not be read.
    """
    shares = processes.found_by_all((mine.confusion, places, mine.each, missing.reasons))
    reasons = gathered(reasons for _, _, _, reasons in shares)
    without(data, reasons)
    metrics = mine
    if processes.rank() == 0:
        order = np.argsort(np.concatenate([np.array(found, dtype=np.int64) for _, found, _, _ in shares]))
        each = np.concatenate([part for _, _, part, _ in shares])[order]
        confusion = np.sum([part for part, _, _, _ in shares], axis=0)
        metrics = SegmentationMetrics(mine.classes, confusion, each).with_intervals(judging)
    return replace(processes.from_main(metrics), unreadable=tuple(reasons.values()))


def evaluate_to_folder(
    model: PIIPModel,
    data: MaskData,
    output: Path,
    batch_size: int = 1,
    workers: int = 2,
    precision: Precision = "fp32",
    options: Options = EVERYTHING,
    judging: Judging = PLAIN,
) -> SegmentationMetrics:
    """Evaluate and write `metrics.json`, `confusion_matrix.png`, and the predicted masks into `masks`."""
    from piip.evaluation.plots import plot_matrix

    data = in_label_order(model.config, data)
    predictor = Predictor.where_it_is(model, precision)

    names = numbered([image.mask.with_suffix(".png").name for image in data.images])
    places: list[int] = []
    missing = Missing()

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index, labels, prediction in predict_all(predictor, data, batch_size, workers, options, missing):
            places.append(index)
            image = data.images[index]
            blank = np.zeros((*image.size, 3), dtype=np.uint8)
            result = SegmentationResult.of(prediction, model.config, blank, image.path)
            result.save_mask(output / "masks" / names[index])
            yield labels, prediction["labels"].numpy()

    metrics = _of_all(evaluation.evaluate(pairs(), data.classes), data, places, missing, judging)
    if processes.rank() > 0:
        return metrics
    output.mkdir(parents=True, exist_ok=True)
    metrics.save(output / "metrics.json")
    plot_matrix(metrics.confusion, data.classes, output / "confusion_matrix.png", percent=True)
    return metrics


def with_thresholds(described: config.Model, metrics: SegmentationMetrics) -> config.Model:
    """As it is: scores decide nothing."""
    return described


def tables(metrics: SegmentationMetrics) -> list[RenderableType]:
    """What `piip val` prints."""
    return [metrics.summary_table(), metrics.class_table()]


def set_windows(model: PIIPModel, window: int | None, stride: int | None = None) -> None:
    """Predict in windows of `window` pixels from now on, or whole images; ValueError where that cannot be."""
    head = model.config.head
    if not isinstance(head, config.UperNet):
        raise ValueError(f"{model.config.name} is a {model.config.task} model; windows are for segmentation")
    smallest = model.config.backbone.smallest_image
    if window is not None and window < smallest:
        raise ValueError(f"windows of {window} pixels: this model needs at least {smallest}, or None for whole images")
    try:
        head = config.UperNet.model_validate(head.model_dump() | {"window": window, "stride": stride})
    except pydantic.ValidationError as error:
        raise ValueError(problems(error)) from error
    model.config = model.config.model_copy(update={"head": head})
    model.head.config = head
