"""Predictions of any number of images into one folder: written as they come, taken up again, in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from piip.lock import locked
from piip.prediction import formats
from piip.prediction.earlier import Earlier, check_same, take_up
from piip.prediction.files import REMEDY, Writer, Written, paths_among
from piip.prediction.listing import ALL, Paths, Shard
from piip.prediction.options import Conf, FurtherOptions, Options
from piip.prediction.predictor import Predictor
from piip.prediction.results import AnyResult
from piip.prediction.sources import Failure, Source, images_of

Outcome = AnyResult | Failure


@dataclass(frozen=True)
class Keeping:
    """How results are kept."""

    pictures: bool = True
    """without them, bulk is faster, and images are dropped as soon as they are read"""
    resume: bool = False
    """go on with what is in the folder, if there is anything"""
    shard: Shard = ALL
    """which part of the images to do; each part needs a folder of its own"""
    formats: tuple[str, ...] = ()
    """detection: what is made of the results at the end, see `prediction.formats`"""
    told: dict[str, Any] = field(default_factory=dict)
    """what else results depend on, such as the weights: a prediction that goes on must have been told the same"""


WHOLE = Keeping()
"""as it is usually done"""


def write_predictions(
    predictor: Predictor,
    sources: Sequence[Source],
    output: Path,
    conf: Conf | None = None,
    batch_size: int | None = None,
    **further: Unpack[FurtherOptions],
) -> Written:
    """Predict on `sources` one image after the other and write the results to `output` as they come.

    Pictures get the image's name (and a number where two files share one), `predictions.jsonl` a line per image, from
    which `predictions.json` is made at the end; a detector's results are also in `coco_results.json`, in which an
    image's id is its number in `predictions.json`, counted from 1, and a segmentor's in `masks`. Broken files are
    tried again at the end, and listed in what is returned and in `failures.jsonl`.

    Raises:
        ValueError: `output` is the folder of an image, or holds files that would be written over.
        FileNotFoundError: nothing is behind a source.
    """
    options = Options.of(conf=conf, batch_size=batch_size, precision=predictor.precision, **further)
    return write_all(predictor, images_of(sources, options.recursive), output, options)


def write_all(
    predictor: Predictor,
    images: Iterable[Source],
    output: Path,
    options: Options,
    keeping: Keeping = WHOLE,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Written:
    """`write_predictions` of single images, kept in one way or another; `tell` gets each result after it is written.

    Raises:
        ValueError: also where parts or going on are asked for of images that are no files, or the earlier prediction
            in the folder was another one.
        RunInUse: another program is predicting into the folder.
    """
    predictor.check(options)
    earlier: Earlier | None = None
    files = _files(images, keeping)
    with ExitStack() as stack:
        if files is not None:
            images = files = keeping.shard.part_of(files)
            if keeping.resume and (output / "predictions.jsonl").is_file():
                stack.enter_context(locked(output, "prediction"))  # two would write into the same lines
                check_same(output, _told(predictor, options, keeping))
                earlier = take_up(output, predictor.kind.FURTHER_LISTS)
                images = earlier.rest_of(files)
        formats.check(keeping.formats, predictor.config, output, None if earlier else REMEDY)
        known = paths_among(files if files is not None else images)
        writer = Writer(output, predictor.kind, known, pictures=keeping.pictures, earlier=earlier, shard=keeping.shard)
        if earlier is None:
            stack.enter_context(locked(output, "prediction"))
        with writer:
            if earlier is None:
                check_same(output, _told(predictor, options, keeping))
            for outcome in _twice(predictor, images, options, keeping, writer.written):
                writer.add(outcome)
                tell(outcome)
        formats.write(keeping.formats, predictor.config, output)
    return writer.written


def _twice(
    predictor: Predictor, images: Iterable[Source], options: Options, keeping: Keeping, written: Written
) -> Iterator[Outcome]:
    """All results, and then those of files that could not be read before, as one may on a network's disk."""
    yield from predictor.outcomes(images, options, keeping.pictures)
    failed = Paths(str(failure.path) for failure in written.failures)
    written.failures.clear()
    if failed:
        yield from predictor.outcomes(failed, replace(options, workers=0), keeping.pictures)


def _files(images: Iterable[Source], keeping: Keeping) -> Paths | None:
    if isinstance(images, Paths):
        return images
    if keeping.resume or keeping.shard != ALL:
        raise ValueError("only files that are known beforehand can be taken up again or done in parts")
    return None


def _told(predictor: Predictor, options: Options, keeping: Keeping) -> dict[str, Any]:
    return {
        "model": predictor.config.name,
        **keeping.told,
        **asdict(options),
        "shard": f"{keeping.shard.number}/{keeping.shard.count}",
        "pictures": keeping.pictures,
    }
