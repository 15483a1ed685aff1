"""Images that cannot be read are found before the first step, and cost their place in a batch, not the run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from piip import processes
from piip.console import Terminal, say
from piip.data.image_files import ImageError
from piip.data.readable import not_for_lack_of_memory
from piip.data.samples import Key, Sample
from piip.data.seeding import derived_seed
from piip.data.whole_images import undecodable
from piip.tasks import Data, note_unreadable, write_findings
from piip.training.accelerator import build_accelerator
from piip.training.settings import Settings

IN_A_ROW = 20
"""after so many images that cannot be read, one in place of the other, something else is wrong"""


def found_undecodable(files: Iterable[Path], settings: Settings) -> dict[Path, str]:
    """Those of `files` that cannot be decoded to their end, and why; each of several processes looks at a part.

    What was looked at before is not decoded again, see `data.whole_images`.
    """
    files = sorted(set(files))
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    mine = undecodable(files[rank::world], processes=settings.workers > 0, bar=rank == 0)
    if world == 1:
        return mine
    build_accelerator(settings)
    from accelerate.utils import gather_object

    return {file: reason for found in gather_object([mine]) for file, reason in found.items()}


class LateFindings:
    """What evaluations had to do without, said and added to the run's findings once for each file."""

    def __init__(self, opened: Mapping[str, Data], file: Path) -> None:
        self.opened, self.file = opened, file
        self._known: set[str] = set()

    def note(self, split: str, problems: Iterable[str]) -> None:
        """Of one evaluation, on every process."""
        new = [problem for problem in problems if problem not in self._known]
        self._known.update(new)
        if new and processes.rank() == 0:
            line = note_unreadable(self.opened[split], new)
            write_findings(self.opened, self.file)
            say(Terminal(stderr=True), f"{split}: {line} (all in {self.file})")


class SkipUnreadable(Dataset[Sample]):
    """A training set in which another image, drawn from (seed, epoch, position), stands in for one that is broken.

    `Sample.unreadable` says so. The images of a batch that can be read are the same as ever.
    """

    def __init__(self, data: Any, seed: int) -> None:
        self.data = data
        self.seed = seed
        self.known: dict[int, str] = {}
        """broken ones that this process has met, by position: saves a second try, changes nothing"""

    def __len__(self) -> int:
        return len(self.data)

    def orientations(self) -> list[int] | None:
        """As the data set says, for batches of one orientation."""
        groups: list[int] | None = self.data.orientations()
        return groups

    def name_of(self, index: int) -> str:
        """The image of `Sample.index`: its file, where the data set knows it."""
        file_of = getattr(self.data, "file_of", None)
        return str(file_of(index)) if file_of else str(index)

    def __getitem__(self, key: Key) -> Sample:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Sample]:
        """The images of a batch; torch's loader asks for batches in this way. ImageError where nearly none is whole."""
        if not any(index in self.known for _, index in keys):
            try:
                return self._fetch(keys)
            except ImageError as error:
                not_for_lack_of_memory(error)
        chosen = [self._readable(key) for key in keys]
        samples = self._fetch([key for key, _ in chosen])
        return [replace(sample, unreadable=broken) for sample, (_, broken) in zip(samples, chosen, strict=True)]

    def _fetch(self, keys: Sequence[Key]) -> list[Sample]:
        """From the data set, which may want to see its batches whole."""
        together = getattr(self.data, "__getitems__", None)
        samples: list[Sample] = together(keys) if together else [self.data[key] for key in keys]
        return samples

    def _readable(self, key: Key) -> tuple[Key, tuple[str, ...]]:
        """`key`, or that of the image in its place, and what is wrong with those that were passed over."""
        epoch, index = key
        broken: list[str] = []
        for attempt in range(IN_A_ROW):
            problem = self._problem((epoch, index))
            if problem is None:
                return (epoch, index), tuple(broken)
            broken.append(problem)
            index = derived_seed(self.seed, *key, attempt) % len(self)
        raise ImageError(f"{IN_A_ROW} images one after the other cannot be read; the last is {broken[-1]}")

    def _problem(self, key: Key) -> str | None:
        """Why an image cannot be read, if so."""
        if key[1] in self.known:
            return self.known[key[1]]
        try:
            self.data[key]
        except ImageError as error:
            not_for_lack_of_memory(error)
            self.known[key[1]] = str(error)
            return str(error)
        return None
