"""What every data set for training and evaluation hands out, whatever its task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from piip.data.surround import Surround
from piip.structures import Size

Key = tuple[int, int]
"""(epoch, position in the data set): all that a sample may depend on, besides the run's seed"""


class KeysOfStep(list[Key]):
    """The keys of one process's batch, which know those of all processes together."""

    def __init__(self, keys: Iterable[Key], step: list[Key], first: int) -> None:
        super().__init__(keys)
        self.step, self.first = step, first
        """all processes' keys in order, and the place among them of this one's first"""

    def __reduce__(self) -> tuple[Any, ...]:
        """For the processes that read images."""
        return KeysOfStep, (list(self), self.step, self.first)


@dataclass(frozen=True)
class Sample:
    """One image as the network takes it."""

    image: Tensor
    """[3, H, W] float32, normalised, not padded"""
    target: Any
    """as in `structures.Batch.targets`"""
    original_size: Size
    """before the transform, in the frame that the annotations are in"""
    index: int
    """position among the images of the data, to name an image in an error or a result"""
    views: tuple[Surround | None, ...] = ()
    """what each branch sees, None: the image; none: all see the image"""
    unreadable: tuple[str, ...] = ()
    """files in whose place this image is, and what is wrong with them"""


class SampleDataset(Protocol):
    """What the loaders take."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> Sample: ...

    def orientations(self) -> list[int] | None:
        """A number for every image, equal for those of similar shape; None where all samples have one shape."""
