"""Predict: images in almost any form in, results out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import overload

import torch
from typing_extensions import Self, Unpack

from piip.api.held import Held
from piip.files import free_folder
from piip.prediction.files import USUAL_FOLDER, Writer, paths_among, saving
from piip.prediction.options import Conf, FurtherOptions, Options, Precision, PredictOptions
from piip.prediction.predictor import PredictionReport, Predictor
from piip.prediction.results import RESULTS, AnyResult
from piip.prediction.sources import Files, Input, Many, Pixels, images_of, is_one_image


class Predicting(Held):
    """A model that predicts."""

    def __call__(self, source: Input, **options: Unpack[PredictOptions]) -> AnyResult | list[AnyResult]:
        """As `predict`."""
        return self.predict(source, **options)

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
        source: Input,
        conf: Conf | None = None,
        save: str | Path | bool | None = None,
        batch_size: int | None = None,
        precision: Precision | None = None,
        **further: Unpack[FurtherOptions],
    ) -> AnyResult | list[AnyResult]:
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
            further: other options of `piip.prediction.options.Options`, and names that hands know from elsewhere, such
                as `threshold` for `conf` and `batch` for `batch_size`.

        Raises:
            TypeError: an option that is none; the message names the near ones.
            ImageError: an image cannot be read (in a folder or list: after the others were done).
            FileNotFoundError: there is no such file, or no image in the folder.
            ValueError: `save` is the folder of an image.
        """
        single = is_one_image(source)
        report = self.predict_report(
            source, conf=conf, save=save, batch_size=batch_size, precision=precision, **further
        )
        return report.answer(single)

    def predict_report(self, source: Input, **given: Unpack[PredictOptions]) -> PredictionReport:
        """As `predict`, but broken files are listed beside the results instead of raising."""
        save = given.pop("save", None)
        options = Options.of(**given)
        images = images_of(source, options.recursive)
        kind = RESULTS[self.config.task]
        if save is True:
            save = free_folder(USUAL_FOLDER)
        writer = None if not save else Writer(Path(save), kind, paths_among(images), lists=False)
        predictor = self.predictor(options.precision)
        predictor.check(options)
        outcomes = predictor.outcomes(images, options)
        return PredictionReport.of(outcomes if writer is None else saving(outcomes, writer))

    def predictor(self, precision: Precision = "fp32") -> Predictor:
        """What `predict` runs, kept for the next call: it holds a folded copy of the model."""
        if self._model is None:
            warnings.warn(
                f"{self.config.name} has random weights, and what it finds means nothing: train it, or load weights "
                "by their path (pretrained=True fetches released ones)",
                stacklevel=4,
            )
        model, kept = self.model, self._predictor
        wanted = (model, model.config, precision, torch.device(self.device))
        if kept is None or (kept.model, kept.config, kept.precision, kept.device) != wanted:
            kept = self._predictor = Predictor(model, self.device, precision, compile=self.compile)
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
