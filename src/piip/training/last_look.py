"""The end of a training: the best weights measured, and pictures of what was to be found beside what was."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from piip import processes, tasks
from piip.console import Terminal
from piip.data.image_files import ImageError
from piip.evaluation.judging import WITH_INTERVALS
from piip.files import numbered, shortened
from piip.model import PIIPModel
from piip.pictures.beside import beside, titled
from piip.prediction.exports import save_picture
from piip.prediction.files import LONGEST_STEM, PICTURE
from piip.prediction.listing import Paths
from piip.prediction.predictor import Predictor
from piip.prediction.sources import Failure
from piip.training.settings import Settings
from piip.training.validation import in_tiles

DRAWN_PREDICTIONS = 8
LEAST_SCORE = 0.5
"""of the objects that are drawn"""


def last_look(best: PIIPModel, val_data: tasks.Data, settings: Settings, output: Path) -> tasks.Metrics:
    """Metrics, curves and pictures of the best weights on `val_data`, written to `output`; the tables are shown."""
    task = tasks.of(best.config)
    how = (settings.batch_size, settings.workers, settings.precision)
    metrics = task.evaluate_to_folder(best, val_data, output, *how, in_tiles(settings), WITH_INTERVALS)
    if processes.rank() > 0:
        return metrics
    draw_beside(best, val_data, settings, output)
    console = Terminal(stderr=True)
    for table in task.tables(metrics):
        console.print(table)
    return metrics


def draw_beside(model: PIIPModel, data: tasks.Data, settings: Settings, output: Path) -> None:
    """Some images from all over `data` as JPEG in `output`: on the left what is annotated, on the right what is found.

    Pictures of the same names are replaced. Images that cannot be read are left out.
    """
    task = tasks.of(model.config)
    positions = tasks.spread(len(data.images), DRAWN_PREDICTIONS)
    paths = [data.images[position].path for position in positions]
    names = numbered([shortened(path.stem, LONGEST_STEM) + PICTURE for path in paths])
    predictor = Predictor(model, next(model.parameters()).device, settings.precision)
    found = f"found, with a score of {LEAST_SCORE} or more" if model.config.task == "detection" else "found"
    files = Paths(map(str, paths))  # which may be gone by now
    outcomes = predictor.stream(files, conf=LEAST_SCORE, tiles=settings.evaluated_in_tiles)
    for position, name, outcome in zip(positions, names, outcomes, strict=True):
        if isinstance(outcome, Failure):
            continue
        try:
            annotated = task.draw_annotated(data, position)
        except ImageError:
            continue
        picture: np.ndarray = beside(titled(annotated, "annotated"), titled(outcome.readable(), found))
        save_picture(picture.copy, output / name)
