"""Predict: images in almost any form in, results out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, overload

import torch
from typing_extensions import Self, Unpack

from piip.api.held import Held
from piip.console import PIIPWarning
from piip.data.image_files import ImageError
from piip.files import free_folder
from piip.prediction.files import USUAL_FOLDER, Writer, paths_among, saving
from piip.prediction.options import Conf, FurtherOptions, Options, Precision, PredictOptions
from piip.prediction.predictor import PredictionReport, Predictor
from piip.prediction.results import RESULTS, AnyResult
from piip.prediction.sources import Failure, Files, Input, Many, Pixels, images_of, is_one_image
from piip.video.clips import Clip, is_clip, opened_clip
from piip.video.predicting import results_of


class Predicting(Held):
    """A model that predicts."""

    def __call__(self, source: Input, **options: Unpack[PredictOptions]) -> AnyResult | list[AnyResult]:
        """As `predict`."""
        return self.predict(source, **options)

    @overload
    def predict(
        self, source: Input | int, *, stream: Literal[True], every: int = 1, **options: Unpack[PredictOptions]
    ) -> Iterator[AnyResult]: ...

    @overload
    def predict(  # type: ignore[overload-overlap] # an array is also a collection of arrays
        self, source: Pixels, **options: Unpack[PredictOptions]
    ) -> AnyResult: ...

    @overload
    def predict(  # type: ignore[overload-overlap] # a text is also a collection of texts
        self, source: Files, **options: Unpack[PredictOptions]
    ) -> AnyResult | list[AnyResult]: ...

    @overload
    def predict(self, source: Many, **options: Unpack[PredictOptions]) -> list[AnyResult]: ...

    def predict(
        self,
        source: Input | int,
        conf: Conf | None = None,
        save: str | Path | bool | None = None,
        batch_size: int | None = None,
        precision: Precision | None = None,
        stream: bool = False,
        every: int = 1,
        **further: Unpack[FurtherOptions],
    ) -> AnyResult | list[AnyResult] | Iterator[AnyResult]:
        """The result of one image, or a list of results for several.

        A result is a `piip.prediction.objects.Result` (objects), a `SegmentationResult` (a class for every pixel) or a
        `ClassificationResult` (probabilities), by the model's task.

        Args:
            source: a path, PIL image, array [H, W, 3] uint8 RGB, tensor [3, H, W] in 0..1, or a collection of these; a
                folder or a glob pattern also gives a list.
            conf: lowest score of an object that counts, 0 to 1, usually 0.25; "auto": of each class the one of its best
                F1, as the weights hold it (see `with_thresholds`); or a number for each class by its name. The other
                tasks have no use for it.
            save: a folder for annotated pictures, not that of the images. A picture is written as soon as it is
                predicted; what is in the folder stays, and where a name is taken the new picture gets a number.
                True: the next free one of runs/predict, runs/predict2, ...
            batch_size: images per forward pass, of one padded size, so that results do not depend on it; usually 1.
            precision: "fp32" (the usual), "bf16" or "fp16".
            stream: give the results one by one, as an iterator that keeps none of them; also of a clip (a file such as
                "clip.mp4", or the number of a camera), with `result.frame` and `result.seconds`.
            every: of a clip, only every so many frames.
            further: other options of `piip.prediction.options.Options`, and names that hands know from elsewhere, such
                as `threshold` for `conf` and `batch` for `batch_size`.

        Raises:
            TypeError: an option that is none; the message names the near ones.
            ImageError: an image cannot be read (in a folder or list: after the others were done).
            FileNotFoundError: there is no such file, or no image in the folder.
            ValueError: `save` is the folder of an image.
        """
        if stream:
            return self._streamed(source, every, conf=conf, save=save, batch_size=batch_size, precision=precision,
                                  **further)  # fmt: skip
        if is_clip(source):
            kind = "camera " if isinstance(source, int) else ""
            raise ValueError(f"{kind}{source} is a clip: stream=True gives the result of one frame after the other; "
                             "`piip predict` writes an annotated clip")  # fmt: skip
        assert not isinstance(source, int)
        single = is_one_image(source)
        report = self.predict_report(
            source, conf=conf, save=save, batch_size=batch_size, precision=precision, **further
        )
        return report.answer(single)

    def _streamed(self, source: Input | int, every: int, **given: Unpack[PredictOptions]) -> Iterator[AnyResult]:
        """The results of `predict`, one by one; ImageError at the end where an image or a clip was broken."""
        if isinstance(source, int) or (isinstance(source, str | Path) and is_clip(source)):
            if given.pop("save", None):
                raise ValueError("save: of a clip, `piip predict` writes an annotated clip")
            return self._of_clip(opened_clip(source), every, Options.of(**given))
        save = given.pop("save", None)
        return _only_results(self._outcomes(source, save, Options.of(**given)))

    def _of_clip(self, clip: Clip, every: int, options: Options) -> Iterator[AnyResult]:
        for _, result in results_of(self.predictor(options.precision), clip, options, every):
            yield result
        if clip.damage is not None:
            raise ImageError(f"{clip.name}: {clip.damage}")

    def _outcomes(
        self, source: Input, save: str | Path | bool | None, options: Options
    ) -> Iterator[AnyResult | Failure]:
        images = images_of(source, options.recursive)
        kind = RESULTS[self.config.task]
        if save is True:
            save = free_folder(USUAL_FOLDER)
        writer = None if not save else Writer(Path(save).expanduser(), kind, paths_among(images), lists=False)
        predictor = self.predictor(options.precision)
        predictor.check(options)
        outcomes = predictor.outcomes(images, options)
        return outcomes if writer is None else saving(outcomes, writer)

    def predict_report(self, source: Input, **given: Unpack[PredictOptions]) -> PredictionReport:
        """As `predict`, but broken files are listed beside the results instead of raising."""
        save = given.pop("save", None)
        return PredictionReport.of(self._outcomes(source, save, Options.of(**given)))

    def predictor(self, precision: Precision = "fp32") -> Predictor:
        """What `predict` runs, kept for the next call: it holds a folded copy of the model."""
        if self._model is None:
            warnings.warn(
                f"{self.config.name} has random weights, and what it finds means nothing: train it, or load weights "
                "by their path (pretrained=True fetches released ones)",
                PIIPWarning,
                stacklevel=5,
            )
        model, kept = self.model, self._predictor
        wanted = (model, model.config, precision, torch.device(self.device))
        if kept is None or (kept.model, kept.config, kept.precision, kept.device) != wanted:
            kept = self._predictor = Predictor(model, self.device, precision, compile=self.compile, graphs=self.graphs)
        return kept

    def use_windows(self, window: int | None, stride: int | None = None) -> Self:
        """Segment images in square windows of `window` pixels of the network's input; None: whole images.

        Args:
            window: a model trained on crops often does best with windows of the crops' size; None or 0: none.
            stride: from one window to the next; None: two thirds of the window.

        Raises:
            ValueError: the model is no segmentor, or the stride is larger than the window.
        """
        from piip.tasks import segmentation

        segmentation.set_windows(self.model, window or None, stride)
        self.config = self.model.config
        return self


def _only_results(outcomes: Iterator[AnyResult | Failure]) -> Iterator[AnyResult]:
    """The results; ImageError at the end for the files that could not be read."""
    failures: list[Failure] = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            yield outcome
    PredictionReport([], failures).answer(single=False)
