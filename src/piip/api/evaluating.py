"""Evaluate: how good a model is on a split of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from piip import processes, tasks
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
from piip.prediction.options import Options
from piip.prediction.predictor import Precision

if TYPE_CHECKING:
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
    ) -> Metrics:
        """Evaluate on a split of `data`; with `output`, write metrics, predictions and pictures there.

        The numbers do not depend on `batch_size`, but for rounding: a batch holds images of one padded size. Several
        processes of torch.distributed that all call this share the images.
        `image_size`: the limit of the longer side of the network's input in pixels, or "native" for images as they
        are; the model's own without it. `detections`, `tiles` and `overlap`: as in `predict`.
        `area_limits`: detection: sides in pixels, such as (0, 16, 32, 96): AP and AR of objects of each size between
        them, and beyond, for each class. `intervals`: what 95 % of 1000 draws of as many images, with replacement,
        give.

        Raises:
            DataError: no data set, or one that the model is not for, or most of whose images are missing or cannot be
                read. A few that cannot are left out: `metrics.unreadable` names those that broke after the check.
            ValueError: `output` holds files that would be written over, or limits that do not rise.
        """
        options = Options.of(conf=0.0, detections=detections, tiles=tiles, overlap=overlap)
        judging = Judging(area_limits, DRAWS if intervals else 0)
        if self.config.task != "detection":
            judging.refuse_sizes(self.config.task)
        data, output = Path(data).expanduser(), None if output is None else Path(output).expanduser()
        if output is not None:
            require_plots()
        tasks.require_pairing(self.config, data)
        if output is not None and processes.rank() == 0:
            refuse_taken((Path(output) / name for name in tasks.EVALUATION_FILES), REMEDY)
        processes.from_main(None)  # nobody writes before that is known
        task = tasks.of(self.config)
        opened = opened_once(lambda: task.open_split(data, split))
        opened = tasks.leave_out(opened, _undecodable([image.path for image in opened.images], workers), "val")
        if split != "train":
            tasks.require_enough(split, opened)
        line = tasks.in_a_line({split: opened})
        if line is not None:
            say(Terminal(stderr=True), line)
        model = self.model
        if image_size is not None:
            model = described_as(model, self.config.predicting_at(image_size))
        run = (batch_size, workers, precision, options, judging)
        if output is None:
            metrics = task.evaluate(model, opened, *run)
        else:
            metrics = task.evaluate_to_folder(model, opened, Path(output), *run)
        if metrics.unreadable and processes.rank() == 0:
            line = tasks.note_unreadable(opened, metrics.unreadable)
            say(Terminal(stderr=True), f"{split}: {line}")
        if line is not None and output is not None and processes.rank() == 0:
            tasks.write_findings({split: opened}, Path(output) / tasks.FINDINGS_FILE)
        return metrics

    evaluate = val


def _undecodable(files: list[Path], workers: int) -> dict[Path, str]:
    """Those that cannot be decoded, and why; each of several processes looks at a part."""
    rank, world = processes.rank(), processes.count()
    parts = processes.gathered(undecodable(files[rank::world], workers > 0, bar=rank == 0))
    broken: dict[Path, str] = processes.from_main({file: why for part in parts for file, why in part.items()})
    return broken
