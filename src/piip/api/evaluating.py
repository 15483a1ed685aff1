"""Evaluate: how good a model is on a split of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piip import config, processes, tasks
from piip.api.held import Held
from piip.config import ImageSize
from piip.console import Terminal, say
from piip.data.opening import opened_once
from piip.data.whole_images import undecodable
from piip.evaluation.judging import DRAWS, Judging
from piip.evaluation.plots import require_plots
from piip.files import refuse_taken
from piip.inference.resized import described_as
from piip.prediction.files import REMEDY
from piip.prediction.options import EVERYTHING, Options
from piip.prediction.predictor import Precision

if TYPE_CHECKING:
    from piip.export.exported import Exported
    from piip.export.exported_model import ExportedModel
    from piip.model import PIIPModel
    from piip.tasks import Metrics


class Evaluating(Held):
    """A model that is judged."""

    def val(
        self,
        data: str | Path,
        split: str = "val",
        output: str | Path | None = None,
        batch_size: int = 1,
        workers: int = 2,
        precision: Precision = "fp32",
        image_size: ImageSize | None = None,
        detections: int | None = None,
        tiles: int | None = None,
        overlap: float | None = None,
        area_limits: Sequence[float] | None = None,
        intervals: bool = True,
        iou: float | Sequence[float] | None = None,
    ) -> Metrics:
        """Evaluate on a split of `data`; with `output`, write metrics, predictions and pictures there.

        The numbers do not depend on `batch_size`, but for rounding: a batch holds images of one padded size. Several
        processes of torch.distributed that all call this share the images.
        `image_size`: the limit of the longer side of the network's input in pixels, or "native" for images as they
        are; the model's own without it. `detections`, `tiles` and `overlap`: as in `predict`.
        `area_limits`: detection: sides in pixels, such as (0, 16, 32, 96): AP and AR of objects of each size between
        them, and beyond, for each class. `intervals`: what 95 % of 1000 draws of as many images, with replacement,
        give. `iou`: detection: overlaps from which an object counts as found, such as 0.33: AP at each, beside COCO's
        (elsewhere `iou` is that of the suppression of duplicates, which here is part of the model).

        Raises:
            DataError: no data set, or one that the model is not for, or most of whose images are missing or cannot be
                read. A few that cannot are left out: `metrics.unreadable` names those that broke after the check.
            ValueError: `output` holds files that would be written over, or limits that do not rise, or an IoU
                that is none.
        """
        options = Options.of(conf=0.0, detections=detections, tiles=tiles, overlap=overlap)
        judging = Judging(area_limits, DRAWS if intervals else 0, ious=_ious(iou))
        place = (Path(data).expanduser(), split, None if output is None else Path(output).expanduser())

        def model() -> PIIPModel:
            whole = self.model
            return whole if image_size is None else described_as(whole, self.config.predicting_at(image_size))

        return _evaluated(self.config, model, place, (batch_size, workers, precision, options, judging))

    evaluate = val


def evaluate_exported(
    exported: Exported,
    data: str | Path,
    split: str = "val",
    output: str | Path | None = None,
    workers: int = 2,
    area_limits: Sequence[float] | None = None,
    intervals: bool = True,
    iou: float | Sequence[float] | None = None,
) -> Metrics:
    """As `PIIP.val`, of an exported file: what it lost on the way, by the same figures.

    Raises:
        DataError, ValueError: as there; or a file that holds a backbone, or whose graph is too small for whole images.
    """
    exported.require_whole_images()
    judging = Judging(area_limits, DRAWS if intervals else 0, ious=_ious(iou))
    place = (Path(data).expanduser(), split, None if output is None else Path(output).expanduser())
    run = (exported.description.batch, workers, "fp32", EVERYTHING, judging)
    return _evaluated(exported.config, lambda: exported.model, place, run)


def _ious(given: float | Sequence[float] | None) -> tuple[float, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, int | float) else tuple(given)


def _evaluated(
    described: config.Model,
    make: Callable[[], PIIPModel | ExportedModel],
    place: tuple[Path, str, Path | None],
    run: tuple[int, int, Any, Options, Judging],
) -> Metrics:
    """The evaluation of the model that `make` gives, which is asked for it when all else is known to be right."""
    data, split, output = place
    judging, workers = run[-1], run[1]
    if described.task != "detection":
        judging.refuse_what_objects_have(described.task)
    if output is not None:
        require_plots()
    tasks.require_pairing(described, data)
    if output is not None and processes.rank() == 0:
        refuse_taken((output / name for name in tasks.EVALUATION_FILES), REMEDY)
    processes.from_main(None)  # nobody writes before that is known
    task: Any = tasks.of(described)
    opened = opened_once(lambda: task.open_split(data, split))
    opened = tasks.leave_out(opened, _undecodable([image.path for image in opened.images], workers), "val")
    if split != "train":
        tasks.require_enough(split, opened)
    line = tasks.in_a_line({split: opened})
    if line is not None:
        say(Terminal(stderr=True), line)
    metrics: Metrics
    if output is None:
        metrics = task.evaluate(make(), opened, *run)
    else:
        metrics = task.evaluate_to_folder(make(), opened, output, *run)
    if metrics.unreadable and processes.rank() == 0:
        line = tasks.note_unreadable(opened, metrics.unreadable)
        say(Terminal(stderr=True), f"{split}: {line}")
    if line is not None and output is not None and processes.rank() == 0:
        tasks.write_findings({split: opened}, output / tasks.FINDINGS_FILE)
    return metrics


def _undecodable(files: list[Path], workers: int) -> dict[Path, str]:
    """Those that cannot be decoded, and why; each of several processes looks at a part."""
    rank, world = processes.rank(), processes.count()
    parts = processes.gathered(undecodable(files[rank::world], workers > 0, bar=rank == 0))
    broken: dict[Path, str] = processes.from_main({file: why for part in parts for file, why in part.items()})
    return broken
