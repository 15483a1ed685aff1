"""What an evaluation does where an image breaks after the check: go on without it, and know which one it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from piip.data.image_files import ImageError
from piip.data.samples import Key, Sample, SampleDataset
from piip.structures import Batch


class Unread(NamedTuple):
    """In the place of a sample."""

    position: int
    """in the data set"""
    reason: str
    """what is wrong, with the file's name"""


class Readable(Dataset[Sample | Unread]):
    """The samples of a data set, and of those that cannot be read why."""

    def __init__(self, data: SampleDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key) -> Sample | Unread:
        try:
            return self.data[key]
        except ImageError as error:
            not_for_lack_of_memory(error)
            return Unread(key[1], str(error))


def divided(parts: Sequence[Sample | Unread]) -> tuple[list[Sample], dict[int, str]]:
    """The samples, and by position why there are no others."""
    samples = [part for part in parts if isinstance(part, Sample)]
    return samples, {part.position: part.reason for part in parts if isinstance(part, Unread)}


def empty_batch(missing: dict[int, str]) -> Batch:
    """Of images none of which can be read."""
    return Batch(torch.zeros(0, 3, 1, 1), missing=missing)


def not_for_lack_of_memory(error: ImageError) -> None:
    """Raise the MemoryError behind it, if there is one: then nothing is wrong with the image."""
    if isinstance(error.__cause__, MemoryError):
        raise error.__cause__
