"""What predictions leave in a folder, written image by image: pictures, lists of results, files of the task's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from piip.console import counted
from piip.files import atomic_write, json_text, numbered, refuse_taken, shortened, taken
from piip.prediction.earlier import RUN, Earlier
from piip.prediction.listing import ALL, Shard
from piip.prediction.results import AnyResult, ResultKind
from piip.prediction.sources import Failure, Source

USUAL_FOLDER = Path("runs/predict")
PICTURE = ".jpg"
LONGEST_STEM = 240
"""bytes of a picture's name, which leaves room for a number and an ending"""
FAILURES = "failures"
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
        found = "" if self.objects is None else f", {counted(self.objects, 'object')}"
        return counted(self.images, "image") + found


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
        pictures: lists only, without it, and whatever else the task writes.
        earlier: what is in the folder of the same prediction, which goes on.
        shard: which part of all images it is of; ids of images differ between the parts.

    Raises:
        ValueError: `folder` is that of an image, or (with `lists`) there are files that would be written over. Where
            pictures alone are written, those that are there stay, and new ones get a number.
    """

    def __init__(
        self,
        folder: Path,
        kind: ResultKind,
        images: Sequence[Path] = (),
        lists: bool = True,
        replace: bool = False,
        pictures: bool = True,
        earlier: Earlier | None = None,
        shard: Shard = ALL,
    ) -> None:
        self.folder, self.lists, self.replace, self.pictures, self.shard = folder, lists, replace, pictures, shard
        self.written = Written()
        self._names: set[str] = set()
        self._lines: dict[str, TextIO] = {}
        self._kind, self._resumed = kind, earlier is not None
        if pictures:
            refuse_folder_of(images, folder)
        if earlier is not None:
            self.written = Written(earlier.images, earlier.objects)
            self._names = earlier.pictures
        elif lists and not replace and taken(folder):
            remedy = f"{REMEDY}; with --resume it goes on" if (folder / RUN).exists() else REMEDY
            refuse_taken((folder / name for name in self._all_names(images)), remedy)

    def _all_names(self, images: Sequence[Path]) -> Iterator[str]:
        """Whatever may be written."""
        for name in (*self._list_names, FAILURES):
            yield from (f"{name}.jsonl", f"{name}.json")
        yield RUN
        yield from self._kind.FURTHER_FOLDERS
        if self.pictures:
            yield from numbered(shortened(image.stem, LONGEST_STEM) + PICTURE for image in images)

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
            self._lines[name] = path.open("a" if self._resumed else "x", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._lines.values():
            file.close()
        if error is None:
            for name in self._list_names:
                gather(self.folder / f"{name}.jsonl", self.folder / f"{name}.json")
            self._keep_failures()

    def add(self, outcome: AnyResult | Failure) -> None:
        """Write all that belongs to one image."""
        if isinstance(outcome, Failure):
            self.written.failures.append(outcome)
            if self.lists:
                self._append_and_flush(FAILURES, [_failure(outcome)])
            return
        self.written.images += 1
        if outcome.count is not None:
            self.written.objects = (self.written.objects or 0) + outcome.count
        files = self._save(outcome)
        if self.lists:
            number = self.shard.id_of(self.written.images)
            for name, entries in outcome.further_entries(number).items():
                self._append_and_flush(name, entries)
            # Last, since it says that all of this image is there.
            self._append_and_flush("predictions", [{"id": number, **files, **outcome.to_dict()}])

    def _save(self, outcome: AnyResult) -> dict[str, str]:
        """Write the image's own files; what its entry says of them."""
        if not self.pictures and not (self.lists and self._kind.FURTHER_FOLDERS):
            return {}
        stem = self._free_stem("image" if outcome.path is None else outcome.path.stem)
        files = {}
        if self.pictures:
            outcome.save(self.folder / (stem + PICTURE))
            files["picture"] = stem + PICTURE
        return files | (outcome.save_further(self.folder, stem) if self.lists else {})

    def _append_and_flush(self, name: str, entries: Iterable[dict[str, Any]]) -> None:
        if name not in self._lines:
            self._lines[name] = (self.folder / f"{name}.jsonl").open("a", encoding="utf-8")
        self._lines[name].writelines(json_text(entry) + "\n" for entry in entries)
        self._lines[name].flush()

    def _keep_failures(self) -> None:
        """Of the failures noted on the way, only those that are left."""
        path = self.folder / f"{FAILURES}.jsonl"
        if self.written.failures and self.lists:
            with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.writelines(json_text(_failure(failure)) + "\n" for failure in self.written.failures)
        elif FAILURES in self._lines or self._resumed:
            path.unlink(missing_ok=True)

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
        """In a prediction that goes on, what is there without a line is what it was just writing when it ended."""
        if self.replace or self._resumed:
            return False
        further = [self.folder / name / f"{stem}.png" for name in self._kind.FURTHER_FOLDERS if self.lists]
        return any(map(taken, (self.folder / (stem + PICTURE), *further)))


def _failure(failure: Failure) -> dict[str, Any]:
    return {"path": str(failure.path), "reason": failure.reason}


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
    if not os.path.isdir(folder):
        return
    for path in images:
        if folder in (os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))):
            raise ValueError(f"{output}: the image {path.name} is there, which its picture would overwrite; "
                             "choose another folder for the results")  # fmt: skip
