"""Images in almost any form in, results out: the one owner of device and precision outside training."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from typing_extensions import Unpack

from piip import devices
from piip.console import counted
from piip.data.batches import collate, padded_size
from piip.data.image_files import ImageError
from piip.data.samples import Sample
from piip.data.surround import Shown, Surroundings
from piip.heads.precision import predict_in_float32
from piip.inference.current_copy import InferenceCopy, Newest, Upcast, stored_in_half
from piip.prediction.label_map import SegmentationResult
from piip.prediction.least_scores import least_score, least_scores
from piip.prediction.objects import Result
from piip.prediction.options import Conf, FurtherOptions, Options, Precision, labels_of
from piip.prediction.preparing import input_transform
from piip.prediction.reading import Prepared, Reader, in_order
from piip.prediction.results import RESULTS, AnyResult
from piip.prediction.sources import Failure, InParts, Source, images_of, opened_in_parts
from piip.prediction.tiled import predict_in_tiles, refuse_classifier
from piip.structures import Batch, Instances, Prediction, Size, size_of
from piip.tiles.grid import Tile

if TYPE_CHECKING:
    from piip.model import PIIPModel

MOST_WAITING = 4
"""batches of images that may wait for others of their size"""
DTYPE_OF: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
NOTHING = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
"""the target of an image that is not annotated"""


@dataclass(frozen=True, eq=False)
class PredictionReport:
    """The results, in the order of the sources, and the files that were skipped."""

    results: list[AnyResult]
    failures: list[Failure]

    @classmethod
    def of(cls, outcomes: Iterable[AnyResult | Failure]) -> PredictionReport:
        """All that a stream gives."""
        report = cls([], [])
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                report.failures.append(outcome)
            else:
                report.results.append(outcome)
        return report

    def answer(self, single: bool) -> AnyResult | list[AnyResult]:
        """The results, or the one of a `single` source; ImageError, which names five of them, for skipped files."""
        if self.failures:
            failed = "; ".join(f"{path}: {reason}" for path, reason in self.failures[:5])
            raise ImageError(f"{counted(len(self.failures), 'unreadable image')}: {failed}")
        return self.results[0] if single else self.results


@dataclass
class _Waiting:
    """An image on its way: read, then run together with others of its padded size."""

    read: Prepared | None = None
    size: Size | None = None
    outcome: AnyResult | Failure | None = None


class Predictor:
    """Runs a model on images.

    Args:
        model: moved to `device`; put into eval mode while it runs
        device: a name of torch's, the number of a GPU, or None or "auto": the first GPU if there is one, else the CPU
        precision: of the matrix products; "bf16" and "fp16" use autocast, but that on devices other than the CPU the
            backbone of a folded copy is stored in it, see `piip.inference.half`. For weights stored in one of the two,
            "fp32" makes a copy in float32 (twice the file's size), and so does the one that they are not in; in the
            other the backbone runs on the weights as they are and the head in float32
        fuse: run a folded copy (see `piip.inference`), made with the first batch and again whenever the weights
            changed; it holds about two thirds of the model's memory once more
        compile: compile the backbone with torch.compile, for images of few fixed sizes; see `piip.inference.compiling`
        graphs: on CUDA devices, run the copy's backbone as CUDA graphs for sizes that come again, which hold up to a
            quarter of the device's memory; see `piip.inference.gpu.graphs`
    """

    def __init__(
        self,
        model: PIIPModel,
        device: devices.Device | None = None,
        precision: Precision = "fp32",
        fuse: bool = True,
        compile: bool = False,
        graphs: bool = True,
    ) -> None:
        self.device = devices.find(device)
        self.precision: Precision = Options(precision=precision).precision
        self.model = model.to(self.device)
        as_stored = stored_in_half(self.model) in (None, DTYPE_OF.get(self.precision))
        upcast: Upcast = "head" if as_stored and self.precision != "fp32" else "all"
        half = None if self.device.type == "cpu" else DTYPE_OF.get(self.precision)
        self.inference = InferenceCopy(self.model, fuse, compile, upcast, graphs, half)
        self.config = model.config
        self.kind = RESULTS[model.config.task]
        self.transform = input_transform(model.config)

    @classmethod
    def where_it_is(cls, model: PIIPModel, precision: Precision = "fp32") -> Predictor:
        """On the device of the model's weights; an exported model, which has none, as it is."""
        weight = next(model.parameters(), None)
        return cls(model, "cpu") if weight is None else cls(model, weight.device, precision)

    def predict(
        self,
        sources: Source | Iterable[Source],
        conf: Conf | None = None,
        batch_size: int | None = None,
        **further: Unpack[FurtherOptions],
    ) -> PredictionReport:
        """Run on all `sources` and keep every result; for many images prefer `stream`, which keeps none.

        Broken files are skipped and listed in the report. The options are those of `prediction.options.Options`.

        Raises:
            FileNotFoundError: a path, folder or pattern with no image behind it
            TypeError, ValueError: an array, tensor or argument of the wrong kind
        """
        return PredictionReport.of(self.stream(sources, conf, batch_size, **further))

    def stream(
        self,
        sources: Source | Iterable[Source],
        conf: Conf | None = None,
        batch_size: int | None = None,
        **further: Unpack[FurtherOptions],
    ) -> Iterator[AnyResult | Failure]:
        """The results one by one, in the order of the sources; a `Failure` in place of a broken file.

        A batch holds images of one padded size, so that an image's result does not depend on the others but for
        rounding; an image that waits for others of its size holds up at most a few batches. Raises what `predict`
        raises, before the first image for a missing path.
        """
        options = Options.of(conf=conf, batch_size=batch_size, precision=self.precision, **further)
        return self.outcomes(images_of(sources, options.recursive), options)

    def run(self, batch: Batch) -> list[Prediction]:
        """Predictions of a batch, on the CPU, boxes and masks in pixels of the original images."""
        return self._run(batch, self.inference.get())

    def _run(self, batch: Batch, model: PIIPModel) -> list[Prediction]:
        """The same with the copy that `inference` holds."""
        batch = batch.to(self.device)
        if {parameter.dtype for parameter in self.model.parameters()} == {torch.float64}:
            batch = batch.double()
        with _evaluating(self.model), torch.inference_mode():
            predictions = self._predictions(model, batch)
        return [{name: value.cpu() for name, value in prediction.items()} for prediction in predictions]

    @property
    def padding(self) -> tuple[int, int]:
        """What `data.batches.collate` pads images to: multiples of the first, and at least the second, in pixels."""
        return self.model.config.preprocess.pad_multiple, self.model.config.backbone.smallest_image

    def outcomes(
        self, images: Iterable[Source], options: Options, pixels: bool = True
    ) -> Iterator[AnyResult | Failure]:
        """As `stream`, of single images.

        Results of files have their pixels at hand until the next one is asked for, and not even so long without
        `pixels`; whoever asks later reads the file again.

        Weights that are changed while it runs count from the next batch on, as far as PyTorch notes the change.
        """
        if options.tiles is not None:
            yield from self._outcomes_in_tiles(images, options)
            return
        transform = self.transform
        if options.image_size is not None:
            transform = input_transform(self.model.config.predicting_at(options.image_size))
        self.check(options)
        read, newest = Reader(transform, pixels, options.max_pixels, options.bgr), Newest(self.inference, self.model)
        waiting: deque[_Waiting] = deque()
        for found in in_order(images, read, options.workers):
            waiting.append(self._waiting(found))
            del found  # large images are let go as soon as they are in a batch
            self._run_full_batches(waiting, options, newest)
            yield from _finished(waiting)
        while waiting:
            self._run_waiting(waiting, waiting[0].size, options, newest)
            yield from _finished(waiting)

    def check(self, options: Options) -> None:
        """ValueError for classes that the model does not have, or thresholds that its weights do not hold."""
        labels_of(options.classes, self.config.classes)
        least_scores(options.conf, self.model.config)

    def _waiting(self, found: Prepared | Failure) -> _Waiting:
        if isinstance(found, Failure):
            return _Waiting(outcome=found)
        return _Waiting(found, padded_size(size_of(found.network_input), *self.padding))

    def _outcomes_in_tiles(self, images: Iterable[Source], options: Options) -> Iterator[AnyResult | Failure]:
        """As `outcomes`, of one image after the other."""
        self.check(options)
        refuse_classifier(self.model.config)
        for source in images:
            outcome = self._outcome_in_tiles(source, options)
            yield outcome
            if not isinstance(outcome, Failure):
                outcome.picture.let_go()

    def _outcome_in_tiles(self, source: Source, options: Options) -> Result | SegmentationResult | Failure:
        begun = time.perf_counter()
        with opened_in_parts(source, options.max_pixels, options.bgr) as found:
            read = time.perf_counter()
            if isinstance(found, Failure):
                return found
            try:
                result = self.in_tiles(found, options)
            except ImageError as error:  # of a part of the file
                assert found.path is not None
                return Failure.of(found.path, error)
        return result.timed(1000 * (read - begun), 1000 * (time.perf_counter() - read), 0.0)

    def in_tiles(self, image: InParts, options: Options) -> Result | SegmentationResult:
        """The result of one image in tiles, of which a batch runs at a time; see `prediction.tiled`."""
        transform, newest = self.transform, Newest(self.inference, self.model)
        if options.image_size is not None:
            transform = input_transform(self.model.config.predicting_at(options.image_size))

        photo = image.photo
        around = Surroundings(photo, self.config.preprocess, self.config.backbone.views)

        def seen(tile: Tile) -> Sample:
            one = transform(photo[:, tile.top : tile.bottom, tile.left : tile.right])
            shown = Shown.tile(*tile)
            return Sample(one, NOTHING, shown.size, 0, around.of(shown.resized(size_of(one))))

        def run(tiles: Sequence[Tile]) -> list[Prediction]:
            batch = self._batch([seen(tile) for tile in tiles], options)
            return [self._of_classes(prediction, options) for prediction in self._run(batch, newest.get())]

        return predict_in_tiles(run, image, self.model.config, options)

    def _run_full_batches(self, waiting: deque[_Waiting], options: Options, newest: Newest) -> None:
        """Run the newest image's size if there is a batch of it, and the oldest's where too many wait for it."""
        size = waiting[-1].size
        if sum(image.outcome is None and image.size == size for image in waiting) >= options.batch_size:
            self._run_waiting(waiting, size, options, newest)
        if len(waiting) >= MOST_WAITING * options.batch_size and waiting[0].outcome is None:
            self._run_waiting(waiting, waiting[0].size, options, newest)

    def _run_waiting(self, waiting: Iterable[_Waiting], size: Size | None, options: Options, newest: Newest) -> None:
        """Run the oldest images of one padded size, at most a batch."""
        found = (image for image in waiting if image.outcome is None and image.size == size)
        images = list(islice(found, options.batch_size))
        read = [image.read for image in images if image.read is not None]
        if not read:
            return
        batch = self._batch([Sample(image.network_input, NOTHING, image.picture.size, 0) for image in read], options)
        read.clear()
        for image in images:  # what the batch has is not needed twice
            image.read = image.read and image.read._replace(network_input=torch.empty(0))
        begun = time.perf_counter()
        predictions = self._run(batch, newest.get())
        each = 1000 * (time.perf_counter() - begun) / len(images)
        for image, prediction in zip(images, predictions, strict=True):
            assert image.read is not None
            begun = time.perf_counter()
            outcome = self._result(prediction, image.read, options)
            image.outcome = outcome.timed(image.read.milliseconds, each, 1000 * (time.perf_counter() - begun))
            image.read = None

    def _of_classes(self, prediction: Prediction, options: Options) -> Prediction:
        """The objects of the classes that are wanted, with the scores that their classes need."""
        wanted, least = labels_of(options.classes, self.config.classes), least_scores(options.conf, self.model.config)
        if "boxes" not in prediction or (wanted is None and least is None):
            return prediction
        labels = prediction["labels"]
        chosen = torch.ones(len(labels), dtype=torch.bool)
        if wanted is not None:
            chosen = torch.isin(labels, torch.tensor(wanted, dtype=torch.int64))
        if least is not None:
            chosen = chosen & (prediction["scores"].float() >= least[labels])
        return {name: part[chosen] for name, part in prediction.items()}

    def _result(self, prediction: Prediction, prepared: Prepared, options: Options) -> AnyResult:
        prediction = self._of_classes(prediction, options)
        least = least_score(options.conf, self.model.config)
        if prepared.pixels is not None:
            prepared.picture.pixels = prepared.pixels.numpy()
        return self.kind.of(prediction, self.model.config, prepared.picture, prepared.path, least)

    def _batch(self, samples: list[Sample], options: Options) -> Batch:
        batch, least = collate(samples, *self.padding), least_score(options.conf, self.model.config)
        whole, tile = (options.detections, None) if options.tiles is None else (None, options.detections)
        return replace(batch, least_score=least, detections=whole, most_detections=tile, paste_masks=False)

    def _predictions(self, model: PIIPModel, batch: Batch) -> list[Prediction]:
        """In the precision asked for; the head of weights stored in half precision in float32."""
        if self.precision == "fp32":
            return model.predict(batch)
        autocast = torch.autocast(self.device.type, DTYPE_OF[self.precision])
        if stored_in_half(self.model) is not None:
            return predict_in_float32(model.head, model.features_of(batch), batch, autocast)
        with autocast:
            return model.predict(batch)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]  # frozen parts of one that trains are not
    if not training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _finished(waiting: deque[_Waiting]) -> Iterator[AnyResult | Failure]:
    """The outcomes at the head of the queue, which are taken off it."""
    while waiting and (outcome := waiting[0].outcome) is not None:
        waiting.popleft()
        yield outcome
        if not isinstance(outcome, Failure):
            outcome.picture.let_go()
