"""Compare: whether one of two models is better by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from piip import config, devices, tasks
from piip.api.piip import PIIP
from piip.data.report import DataError
from piip.evaluation.comparison import Comparison, compared, score_of_labels, score_of_objects
from piip.evaluation.judging import DRAWS, Judging
from piip.evaluation.saved import all_have_masks, read_results
from piip.prediction.coco import CocoResult
from piip.training.folder import RunFolder
from piip.training.settings import read_settings
from piip.training.start import VAL_FOLDER
from piip.weights.files import find_weights, read_config

RESULTS = ".json"
SAVED = "predictions.json"
DETECTION: config.Task = "detection"


def compare(
    first: str | Path,
    second: str | Path,
    data: str | Path | None = None,
    split: str = "val",
    area_limits: Sequence[float] | None = None,
    draws: int = DRAWS,
    batch_size: int = 1,
    workers: int = 2,
    device: devices.Device | None = None,
) -> Comparison:
    """Two models on the same images, with the intervals of their numbers and of the differences.

    A run that was evaluated in tiles is so here, too.

    Args:
        first: a run folder or weights; or COCO results, such as the `predictions.json` of an evaluation.
        second: as `first`.
        data: what they are evaluated on, where these are no results. None: what both runs were evaluated on when
            they ended, whose saved predictions are taken as they are in detection.
        split: of `data`.
        area_limits: detection: sides in pixels; AP of each size, as in `PIIP.val`.
        draws: of as many images, with replacement, the same for both.
        batch_size: of an evaluation.
        workers: of an evaluation.
        device: of an evaluation.

    Raises:
        ValueError: runs on different data, or results alone, without `data`; or models of different tasks.
        DataError: results of other images.
    """
    first, second = Path(first), Path(second)
    judging = Judging(area_limits, draws)
    kinds = {read_config(find_weights(path)).task for path in (first, second) if path.suffix != RESULTS} or {DETECTION}
    if len(kinds) > 1 or (kinds != {DETECTION} and RESULTS in (first.suffix, second.suffix)):
        raise ValueError(f"{first} and {second} are of different tasks, which have no number in common")
    (kind,) = kinds
    task = tasks.named(kind)
    place, chosen = (_data_of(first, second), None) if data is None else (Path(data), split)
    opened = task.validation_split(place) if chosen is None else task.open_split(place, chosen)
    if opened is None:
        raise ValueError(f"{place}: has neither a val nor a test split that the runs could have been evaluated on")

    def evaluated(path: Path, folder: str | None = None) -> tasks.Metrics:
        return PIIP(path, device).val(place, chosen or _split_of(task, place), folder, batch_size, workers,
                                      tiles=_tiles_of(path), intervals=False)  # fmt: skip

    def found_by(path: Path) -> list[CocoResult]:
        saved = path if path.suffix == RESULTS else path / VAL_FOLDER / SAVED
        if saved == path or (data is None and saved.is_file()):
            return read_results(saved, opened)
        with TemporaryDirectory() as folder:
            evaluated(path, folder)
            return read_results(Path(folder) / SAVED, opened)

    if kind == DETECTION:
        results = [found_by(path) for path in (first, second)]
        masks = opened.has_masks and all(map(all_have_masks, results))
        scores = [score_of_objects(found, opened, judging, masks=masks) for found in results]
    else:
        judging.refuse_what_objects_have(kind)
        both = [evaluated(path) for path in (first, second)]
        if any(metrics.unreadable for metrics in both):
            raise DataError("an image broke while the models were evaluated, so that they saw different ones; again")
        scores = [score_of_labels(metrics, judging) for metrics in both]  # type: ignore[arg-type]
    return compared(scores[0], scores[1], (str(first), str(second)), len(opened.images), draws)


def _data_of(first: Path, second: Path) -> Path:
    """What both runs were trained on; ValueError where that is not one data set, or they are no runs."""
    found = []
    for path in (first, second):
        if not RunFolder(path).config.is_file():
            raise ValueError(f"{path}: is no run folder, which says what it was evaluated on; give the data")
        found.append(read_settings(RunFolder(path).config).data)
    if found[0] is None or found[0] != found[1]:
        raise ValueError(f"the runs were evaluated on {found[0]} and {found[1]}; give the data that both are to be "
                         "evaluated on")  # fmt: skip
    if not (place := Path(found[0]).expanduser()).exists():
        raise DataError(f"{place}: there is no such file or folder here; say where the data of these runs are, "
                        "with --data or data=")  # fmt: skip
    return place


def _tiles_of(path: Path) -> int | None:
    """The side of the tiles in which a run evaluates images; None: whole, as other weights are evaluated."""
    file = RunFolder(path).config
    return read_settings(file).evaluated_in_tiles if file.is_file() else None


def _split_of(task: tasks.Task, place: Path) -> str:
    """The split that `validation_split` takes."""
    try:
        task.open_split(place, "val")
    except DataError:
        return "test"
    return "val"
