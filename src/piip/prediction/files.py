"""What predictions leave in a folder, written image by image: pictures, lists of results, files of the task's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from typing_extensions import Unpack

from piip.files import atomic_write, json_text, refuse_taken, shortened, taken
from piip.prediction.options import FurtherOptions, Options
from piip.prediction.predictor import Predictor
from piip.prediction.results import AnyResult, ResultKind
from piip.prediction.sources import Failure, Source, images_of

PICTURE = ".jpg"
LONGEST_STEM = 240
"""bytes of a picture's name, which leaves room for a number and an ending"""
REMEDY = "choose another folder for the results, or move what is in this one"


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
    predictor: Predictor,
    sources: Sequence[Source],
    output: Path,
    conf: float | None = None,
    batch_size: int | None = None,
    **further: Unpack[FurtherOptions],
) -> Written:
    """Predict on `sources` one image after the other and write the results to `output` as they come.

    Pictures get the image's name (and a number where two files share one), `predictions.jsonl` a line per image, from
    which `predictions.json` is made at the end; a detector's results are also in `coco_results.json`, in which an
    image's id is its number in `predictions.json`, counted from 1, and a segmentor's in `masks`. Broken files are
    listed in what is returned.

    Raises:
        ValueError: `output` is the folder of an image, or holds files that would be written over.
        FileNotFoundError: nothing is behind a source.
    """
    options = Options.of(conf=conf, batch_size=batch_size, precision=predictor.precision, **further)
    return write_all(predictor, sources, output, options)


def write_all(predictor: Predictor, sources: Sequence[Source], output: Path, options: Options) -> Written:
    """`write_predictions` with options that are checked already."""
    images = images_of(sources)
    with Writer(output, predictor.kind, paths_among(images)) as writer:
        for outcome in predictor.outcomes(images, options):
            writer.add(outcome)
    return writer.written


def saving(outcomes: Iterable[AnyResult | Failure], writer: Writer) -> Iterator[AnyResult | Failure]:
    """The same outcomes, each written before it is handed on."""
    with writer:
        for outcome in outcomes:
            writer.add(outcome)
            yield outcome


def paths_among(images: Iterable[Source]) -> list[Path]:
    """The files among images that are known beforehand; of a generator that is none."""
    return [image for image in images if isinstance(image, Path)] if isinstance(images, Sequence) else []


class Writer:
    """Writes results into `folder`, and never over a file that was there before, nor through a link.

    Args:
        folder: made with the first file.
        kind: of the results.
        images: the files that results are of, where they are known beforehand.
        lists: pictures only, without it.
        replace: the folder is the caller's own, and what is in it from before may be replaced.

    Raises:
        ValueError: `folder` is that of an image, or (with `lists`) there are files that would be written over. Where
            pictures alone are written, those that are there stay, and new ones get a number.
    """

    def __init__(
        self, folder: Path, kind: ResultKind, images: Sequence[Path] = (), lists: bool = True, replace: bool = False
    ) -> None:
        self.folder, self.lists, self.replace = folder, lists, replace
        self.written = Written()
        self._names: set[str] = set()
        self._lines: dict[str, TextIO] = {}
        self._kind = kind
        refuse_folder_of(images, folder)
        if lists and not replace:
            names = [f"{name}{ending}" for name in self._list_names for ending in (".jsonl", ".json")]
            pictures = {shortened(image.stem, LONGEST_STEM) + PICTURE for image in images}
            refuse_taken((folder / name for name in (*names, *kind.FURTHER_FOLDERS, *sorted(pictures))), REMEDY)

    @property
    def _list_names(self) -> tuple[str, ...]:
        return ("predictions", *self._kind.FURTHER_LISTS) if self.lists else ()

    def __enter__(self) -> Writer:
        if self._list_names:
            self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._list_names:
            path = self.folder / f"{name}.jsonl"
            if self.replace:
                path.unlink(missing_ok=True)
            self._lines[name] = path.open("x", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._lines.values():
            file.close()
        if error is None:
            for name in self._list_names:
                gather(self.folder / f"{name}.jsonl", self.folder / f"{name}.json")

    def add(self, outcome: AnyResult | Failure) -> None:
        """Write all that belongs to one image."""
        if isinstance(outcome, Failure):
            self.written.failures.append(outcome)
            return
        self.written.images += 1
        if outcome.count is not None:
            self.written.objects = (self.written.objects or 0) + outcome.count
        stem = self._free_stem("image" if outcome.path is None else outcome.path.stem)
        outcome.save(self.folder / (stem + PICTURE))
        if self.lists:
            files = {"picture": stem + PICTURE, **outcome.save_further(self.folder, stem)}
            self._append("predictions", {"id": self.written.images, **files, **outcome.to_dict()})
            for name, entries in outcome.further_entries(self.written.images).items():
                for entry in entries:
                    self._append(name, entry)
            for file in self._lines.values():
                file.flush()

    def _append(self, name: str, entry: dict[str, Any]) -> None:
        self._lines[name].write(json_text(entry) + "\n")

    def _free_stem(self, wanted: str) -> str:
        """A name for an image's files that nothing else has; marks it as taken."""
        wanted = shortened(wanted, LONGEST_STEM)
        stem, number = wanted, 1
        while stem in self._names or self._is_there(stem):
            number += 1
            stem = f"{wanted}-{number}"
        self._names.add(stem)
        return stem

    def _is_there(self, stem: str) -> bool:
        further = [self.folder / name / f"{stem}.png" for name in self._kind.FURTHER_FOLDERS if self.lists]
        return not self.replace and any(map(taken, (self.folder / (stem + PICTURE), *further)))


def gather(lines: Path, target: Path) -> None:
    """A file of JSON lines as one JSON list."""
    with (
        lines.open(encoding="utf-8") as entries,
        atomic_write(target) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        file.write("[")
        for number, entry in enumerate(entries):
            file.write((",\n" if number else "\n") + entry.rstrip("\n"))
        file.write("\n]\n")


def refuse_folder_of(images: Iterable[Path], output: Path) -> None:
    """ValueError where pictures in `output` could take the place of the images they are drawn on."""
    folder = os.path.realpath(output)
    for path in images:
        if folder in (os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))):
            raise ValueError(f"{output}: the image {path.name} is there, which its picture would overwrite; "
                             "choose another folder for the results")  # fmt: skip
