"""Object detection and instance segmentation: COCO data in, COCO average precision out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from rich.console import RenderableType

from piip import config, processes
from piip.console import Terminal, say
from piip.data.batches import eval_loader
from piip.data.detection.augmentation import Augmentation
from piip.data.detection.check import check as check_coco
from piip.data.detection.coco import CocoData, read_split
from piip.data.detection.dataset import MOST, DetectionDataset, load_image, rasterise_objects, training_objects
from piip.data.detection.packed import PackedImages
from piip.data.detection.splits import find_splits
from piip.data.detection.transforms import TestTransform, TrainTransform
from piip.data.object_masks import Masks
from piip.data.opening import chosen, evaluated
from piip.data.report import CheckReport, DataError
from piip.data.transforms import size_in_tests
from piip.evaluation import coco as evaluation
from piip.evaluation import thresholds
from piip.evaluation.coco import COUNTED, NOTE_ON_COUNTING, CocoMetrics
from piip.evaluation.counting import limit_for, most_of_a_class
from piip.evaluation.errors import error_table, errors_of
from piip.evaluation.judging import PLAIN, Judging
from piip.files import write_json
from piip.pictures.objects import draw_object_batch, draw_readable
from piip.prediction.coco import CocoResult
from piip.prediction.objects import Result
from piip.prediction.options import EVERYTHING, Options
from piip.prediction.predictor import Precision, Predictor
from piip.prediction.sources import InParts, Opened, whole_size
from piip.structures import Batch, Prediction
from piip.tasks.read_ahead import photos_of_share
from piip.tasks.task import ClassWeights, spread
from piip.tasks.unread import Missing, gathered, without

if TYPE_CHECKING:
    from piip.model import PIIPModel

BEST_METRIC = "box_AP"
METRICS = tuple(f"{kind}_{name}" for kind in ("box", "mask") for name in (*evaluation.NUMBERS, *evaluation.OFFICIAL))
"""names of `Metrics.scalars`, as far as they are defined"""
DINO_GRAD_CLIP = 0.1


def defaults(described: config.Model) -> Mapping[str, Any]:
    """A DINO's gradients are clipped, as in all of the reference's."""
    return {"grad_clip": DINO_GRAD_CLIP} if isinstance(described.head, config.DINO) else {}


def check(path: str | Path) -> Mapping[str, CheckReport]:
    """A report per split of the data set at `path`; DataError where there is none."""
    return {str(split): report for split, report in check_coco(path).items()}


def open_split(path: str | Path, split: str) -> CocoData:
    """The checked annotations of one split ("train", "val" or "test"); DataError names the splits there are."""
    data, _ = read_split(chosen(path, find_splits(path), split))
    return data


def validation_split(path: str | Path) -> CocoData | None:
    """The split that a training is evaluated on: "val", else "test", else None."""
    split = evaluated(find_splits(path))
    return None if split is None else open_split(path, split)


def best_metric(val_data: CocoData) -> str:
    """AP of as many detections as the images have objects of a class, where these are more than COCO counts."""
    most = most_of_a_class(val_data)
    return f"{BEST_METRIC}@{limit_for(most)}" if most > COUNTED else BEST_METRIC


def adapted(described: config.Model, data: CocoData, class_weights: ClassWeights = None) -> config.Model:
    """`described` for the classes of `data`, without a mask head where the data has no masks."""
    if class_weights is not None:
        raise ValueError("class_weights are for segmentation; detectors have none")
    update: dict[str, Any] = {"classes": data.classes, "category_ids": data.category_ids, "thresholds": None}
    if _predicts_masks(described) and not data.has_masks:
        update["head"] = described.head.model_copy(update={"masks": False})
    return described.model_copy(update=update)


def training_set(
    described: config.Model,
    data: CocoData,
    augmentation: Augmentation,
    seed: int,
    keep_empty: bool = True,
    smallest: int = 0,
) -> DetectionDataset:
    """`data` as augmented training samples, without the images that have no annotations or are smaller than that.

    Raises DataError where no image is left.
    """
    _check_kind(described, data)
    _note_crowded(described, data)
    transform = TrainTransform(described.preprocess, augmentation, described.backbone.views)
    dataset = DetectionDataset(data, transform, seed, keep_empty, _predicts_masks(described), smallest)
    small = int((PackedImages.of(data.images).sizes().min(1, initial=MOST) < smallest).sum())
    empty = len(data.images) - small - len(dataset)
    if empty:
        say(Terminal(stderr=True), f"{empty} of {len(data.images)} training images have no annotations and are left "
            "out; --set drop_empty=false trains on them, too")  # fmt: skip
    if small:
        say(Terminal(stderr=True), f"{small} of {len(data.images)} training images have a side of less than {smallest} "
            "pixels and are left out; --set drop_smaller=0 trains on them, too")  # fmt: skip
    if not len(dataset):
        raise DataError("no training image has annotations and is large enough; with drop_empty=false and "
                        "drop_smaller=0 all would be trained on")  # fmt: skip
    return dataset


def predict_all(
    predictor: Predictor,
    data: CocoData,
    batch_size: int,
    workers: int,
    detections: int | None = None,
    missing: Missing | None = None,
) -> Iterator[tuple[int, Prediction]]:
    """(position in `data`, prediction) of every image of this process's share, those of one padded size together.

    `detections` of an image at most; None: as many as the model keeps. Images that cannot be read are noted in
    `missing`.
    """
    missing = missing or Missing()
    preprocess = predictor.model.config.preprocess
    dataset = DetectionDataset(data, TestTransform(preprocess), seed=0, masks=False)
    sizes = [size_in_tests(image.size, preprocess) for image in data.images]
    multiple, smallest = predictor.padding
    share = (processes.rank(), processes.count())
    loader = eval_loader(dataset, batch_size, workers, *share, pad_multiple=multiple, smallest=smallest, sizes=sizes)
    for batch in missing.batches(loader):
        wanted = replace(batch, paste_masks=False, detections=detections)
        yield from zip(batch.indices, predictor.run(wanted), strict=True)


def by_image_in_tiles(
    predictor: Predictor, data: CocoData, options: Options, missing: Missing, workers: int = 0
) -> dict[int, list[CocoResult]]:
    """The COCO results of each image of this process's share, predicted in tiles, by its position in `data`."""
    results: dict[int, list[CocoResult]] = {}

    def load(index: int) -> np.ndarray:
        return load_image(data.images[index], whole_size)

    for index, pixels in photos_of_share(load, len(data.images), workers, missing):
        image = data.images[index]
        found = predictor.in_tiles(InParts.of(Opened.of(image.path, pixels)), options)
        assert isinstance(found, Result)
        results[index] = found.to_coco(image.id, data.category_ids)
    return results


def by_image(found: Iterable[tuple[int, Prediction]], data: CocoData) -> dict[int, list[CocoResult]]:
    """The COCO results of each image by its position in `data`; only run lengths of masks are kept."""
    return {
        index: evaluation.to_coco_results([prediction], replace(data, images=[data.images[index]]))
        for index, prediction in found
    }


def evaluate(
    model: PIIPModel,
    data: CocoData,
    batch_size: int = 1,
    workers: int = 2,
    precision: Precision = "fp32",
    options: Options = EVERYTHING,
    judging: Judging = PLAIN,
) -> CocoMetrics:
    """COCO average precision of `model` on `data`, on the model's device."""
    data = in_label_order(model.config, data)
    return _measured(model, data, batch_size, workers, precision, options, judging).metrics


class _Measured(NamedTuple):
    metrics: CocoMetrics
    results: list[CocoResult]
    """of all images in the order of `data`, on the main process"""
    data: CocoData
    """the images that could be read"""


def _measured(
    model: PIIPModel,
    data: CocoData,
    batch_size: int,
    workers: int,
    precision: Precision,
    options: Options,
    judging: Judging,
) -> _Measured:
    missing = Missing()
    predictor = Predictor.where_it_is(model, precision)
    if options.tiles is None:
        mine = by_image(predict_all(predictor, data, batch_size, workers, options.detections, missing), data)
    else:
        mine = by_image_in_tiles(predictor, data, replace(options, batch_size=batch_size), missing, workers)
    shares = processes.found_by_all((mine, missing.reasons))
    reasons = gathered(reasons for _, reasons in shares)
    kept = without(data, reasons)
    metrics, results = None, list[CocoResult]()
    if processes.rank() == 0:
        found = {index: results for share, _ in shares for index, results in share.items()}
        results = [result for index in sorted(found) for result in found[index]]
        masks = data.has_masks and _predicts_masks(model.config)
        metrics = evaluation.evaluate_results(results, kept, masks=masks, judging=judging)
        metrics = replace(metrics, unreadable=tuple(reasons.values()))
    return _Measured(processes.from_main(metrics), results, kept)


def evaluate_to_folder(
    model: PIIPModel,
    data: CocoData,
    output: Path,
    batch_size: int = 1,
    workers: int = 2,
    precision: Precision = "fp32",
    options: Options = EVERYTHING,
    judging: Judging = PLAIN,
) -> CocoMetrics:
    """Evaluate and write `metrics.json`, `predictions.json` (COCO results), and the curves and confusions as PNG."""
    from piip.evaluation.plots import confusion_matrix, plot_confusion, plot_precision_recall

    data = in_label_order(model.config, data)
    metrics, results, data = _measured(model, data, batch_size, workers, precision, options, judging)
    if processes.rank() > 0:
        return metrics
    output.mkdir(parents=True, exist_ok=True)
    metrics.save(output / "metrics.json")
    write_json(output / "predictions.json", results)
    write_json(output / "thresholds.json", thresholds.to_dict(metrics.thresholds, metrics.classes, metrics.objects), 2)
    metrics = _with_errors(metrics, results, data)
    if metrics.errors is not None:
        write_json(output / "errors.json", metrics.errors, indent=2)
    plot_precision_recall(metrics.box, data.classes, output / "box_precision_recall.png")
    if metrics.mask is not None:
        plot_precision_recall(metrics.mask, data.classes, output / "mask_precision_recall.png")
    plot_confusion(confusion_matrix(results, data), data.classes, output / "confusion_matrix.png")
    return metrics


def _with_errors(metrics: CocoMetrics, results: list[CocoResult], data: CocoData) -> CocoMetrics:
    """With the kinds of errors; without, and with a word on it, where their library is not installed."""
    try:
        return replace(metrics, errors=errors_of(results, data, masks=metrics.mask is not None))
    except ImportError as error:
        say(Terminal(stderr=True), f"no errors.json: {error}")
        return metrics


def tables(metrics: CocoMetrics) -> list[RenderableType]:
    """What `piip val` prints."""
    costs = [] if metrics.errors is None else [error_table(metrics.errors)]
    return [metrics.summary_table(), *metrics.size_tables(), *metrics.overlap_tables(), metrics.class_table(), *costs]


def with_thresholds(described: config.Model, metrics: CocoMetrics) -> config.Model:
    """`described` with the thresholds that an evaluation of it found."""
    return described.with_thresholds([None if best is None else best.score for best in metrics.thresholds])


def in_label_order(described: config.Model, data: CocoData) -> CocoData:
    """`data` with the model's labels and its own category ids; DataError for classes that the model does not know."""
    return data if data.classes == described.classes else data.with_classes(described.classes)


def _check_kind(described: config.Model, data: CocoData) -> None:
    if _predicts_masks(described) and not data.has_masks:
        raise DataError("the model has a mask head, but the data has no masks; use tasks.detection.adapted")


def _note_crowded(described: config.Model, data: CocoData) -> None:
    head = described.head
    assert isinstance(head, config.DINO | config.MaskRCNN)
    many = (image for image in data.images if len(image.objects) > head.most_objects)
    counts = [len(training_objects(image)) for image in many]
    crowded, largest = sum(count > head.most_objects for count in counts), max(counts, default=0)
    if not crowded:
        return
    counted = f"; {NOTE_ON_COUNTING}" if largest > COUNTED else ""
    say(
        Terminal(stderr=True),
        f"{crowded} of {len(data.images)} images have more objects than the {head.most_objects} that this model "
        f"can find in one, up to {largest}: it is to find all of them with --detections {_with_room(largest)}{counted}",
    )


def _with_room(objects: int) -> int:
    """A number of detections for images of so many objects: some of the best ones will be wrong."""
    room = max(1, 10 ** (len(str(objects)) - 1) // 2)
    return -(-objects * 6 // 5 // room) * room


def image_paths(data: CocoData, count: int) -> list[Path]:
    """Images from all over `data`."""
    return [data.images[position].path for position in spread(len(data.images), count)]


def draw_annotated(data: CocoData, position: int) -> np.ndarray:
    """The image at `position` with its boxes, masks and names, [H, W, 3] uint8."""
    image = data.images[position]
    objects = training_objects(image)
    boxes = torch.tensor([obj.box for obj in objects], dtype=torch.float32).reshape(-1, 4)
    masks = Masks.of(rasterise_objects(objects, image.size, list(range(len(objects))))) if data.has_masks else None
    labels = torch.tensor([obj.label for obj in objects], dtype=torch.int64)
    return draw_readable(load_image(image, whole_size), boxes, labels, None, masks, data.classes)


def draw_training_batch(batch: Batch, described: config.Model) -> np.ndarray:
    """A mosaic of images with their boxes, masks and names, [H, W, 3] uint8."""
    return draw_object_batch(batch, described.preprocess, described.classes)


def _predicts_masks(described: config.Model) -> bool:
    """Whether the model says which pixels are an object's, not only its box."""
    return isinstance(described.head, config.MaskRCNN) and described.head.masks
