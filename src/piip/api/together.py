"""Several models on one frozen backbone predict together."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from piip.api.piip import PIIP
from piip.data.image_files import ImageError
from piip.prediction.options import Conf, FurtherOptions, Options
from piip.prediction.results import AnyResult
from piip.prediction.sources import Failure, Input, images_of, is_one_image
from piip.prediction.together import sharing


def predict_together(
    models: Sequence[PIIP], source: Input, conf: Conf | None = None, **further: Unpack[FurtherOptions]
) -> list[AnyResult] | list[list[AnyResult]]:
    """What each of `models` predicts, with their common backbone run once for each image.

    The results are those of each model's own `predict`, to the last bit. The models must have the same branches and
    interactions, weights included, as after trainings with `freeze="branches,interactions"` from one model; merge, maps
    and heads may differ, and so may the tasks.

    Args:
        models: two or more, on one device.
        source: as of `PIIP.predict`.
        conf: lowest score of an object that counts.
        further: other options of `PIIP.predict`; the batch size is 1.

    Returns:
        For one image a result of each model; for several a list of results of each.

    Raises:
        ValueError: the backbones differ, or images are prepared differently.
        ImageError: an image cannot be read.
    """
    single, options = is_one_image(source), Options.of(conf=conf, batch_size=1, **further)
    images = list(images_of(source, options.recursive))
    predictors = [model.predictor(options.precision) for model in models]
    results: list[list[AnyResult]] = [[] for _ in models]
    with sharing(predictors):
        streams = [predictor.outcomes(images, options) for predictor in predictors]
        for outcomes in zip(*streams, strict=True):
            for kept, outcome in zip(results, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    raise ImageError(f"unreadable image: {outcome.path}: {outcome.reason}")
                kept.append(outcome)
    return [kept[0] for kept in results] if single else results
