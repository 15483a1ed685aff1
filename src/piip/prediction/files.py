"""What `piip predict` writes: annotated pictures, predictions.json, and files of the task's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piip import tasks
from piip.prediction.predictor import Failure, paths_of

if TYPE_CHECKING:
    from piip.api import PIIP


@dataclass
class Written:
    """What was predicted and written."""

    images: int = 0
    objects: int | None = None
    """found in all images; None for tasks without objects"""
    failures: list[Failure] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """For the terminal."""
        return f"{self.images} images" + ("" if self.objects is None else f", {self.objects} objects")


def write_predictions(
    model: PIIP, sources: list[str], output: Path, conf: float, batch_size: int = 1, precision: Any = "fp32"
) -> Written:
    """Predict on `sources` one image after the other and write the results to `output`.

    Pictures get the image's name (and a number where two files share one). Broken files are listed in the result.

    Raises:
        ValueError: `output` is the folder of an image.
        FileNotFoundError: nothing is behind a source.
    """
    refuse_overwriting((path for source in sources for path in paths_of(source)), output)
    predictor = model.predictor(precision)
    return tasks.of(model.config).write_predictions(predictor, list(sources), output, conf, batch_size)


def save_pictures(outcomes: Iterable[Any], output: Path, written: Written) -> Iterator[tuple[Path, Any]]:
    """Save each result's picture as it comes; yields it with its file, and counts both kinds of outcome."""
    taken: set[str] = set()
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            written.failures.append(outcome)
            continue
        output.mkdir(parents=True, exist_ok=True)
        written.images += 1
        yield outcome.save(output / free_name(outcome, taken)), outcome


def refuse_overwriting(images: Iterable[Path | None], output: str | Path) -> None:
    """ValueError where pictures in `output` could take the place of the images they are drawn on."""
    folder = Path(output).resolve()
    for path in images:
        if path is not None and path.resolve().parent == folder:
            raise ValueError(f"{output}: the image {path.name} is there, which its picture would overwrite; "
                             "choose another folder for the results")  # fmt: skip


def free_name(result: Any, taken: set[str]) -> str:
    """A picture's file name after its image's, with a number where another one is called so; adds it to `taken`."""
    stem = result.path.stem if result.path is not None else "image"
    name, number = f"{stem}.jpg", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.jpg"
    taken.add(name)
    return name
