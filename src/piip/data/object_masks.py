"""Which pixels are an object's, kept as run lengths: memory for the length of the outline, not for the image's size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from piip.data.run_lengths import run_lengths, text_of_runs
from piip.structures import Size


class Crop(NamedTuple):
    """The part of a mask that has pixels, or more of it."""

    pixels: np.ndarray
    """[h, w] bool"""
    top: int
    """row of the image that the first row is"""
    left: int
    """column of the image that the first column is"""


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of one image's objects. `len(masks)` of them; `masks[[2, 0]]` are some; `dense()` has every pixel."""

    size: Size
    """(height, width) of the image"""
    runs: tuple[np.ndarray, ...]
    """of each object, int32: lengths of the runs of 0s and 1s in turn down the columns, as COCO has them"""

    @classmethod
    def of(cls, dense: Tensor | np.ndarray) -> Masks:
        """Of masks [N, H, W], true or false per pixel."""
        height, width = dense.shape[-2:]
        one_by_one = (np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask) for mask in dense)
        return cls((height, width), tuple(run_lengths(mask).astype(np.int32) for mask in one_by_one))

    @classmethod
    def of_crops(cls, crops: Iterable[Crop], size: Size) -> Masks:
        """Of the parts that have pixels, in an image of `size`, of which no other is needed at the same time."""
        return cls(size, tuple(runs_of_crop(crop, size) for crop in crops))

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, chosen: Sequence[int]) -> Masks:
        return Masks(self.size, tuple(self.runs[i] for i in chosen))

    def crops(self) -> Iterator[Crop]:
        """Each object's pixels, one after the other."""
        return (crop_of_runs(runs, self.size) for runs in self.runs)

    def dense(self) -> Tensor:
        """[N, H, W] bool: a byte for each pixel of the image and each object."""
        masks = np.zeros((len(self), *self.size), dtype=bool)
        for mask, (pixels, top, left) in zip(masks, self.crops(), strict=True):
            mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        return torch.from_numpy(masks)

    def to_coco(self) -> list[dict[str, object]]:
        """{"size": [H, W], "counts": text} of each, as COCO results have them."""
        return [{"size": list(self.size), "counts": text_of_runs(runs)} for runs in self.runs]

    def areas(self) -> list[int]:
        """Pixels of each."""
        return [int(runs[1::2].sum()) for runs in self.runs]


def runs_of_crop(crop: Crop, size: Size) -> np.ndarray:
    """Run lengths, int32, of a mask of `size` that has pixels in `crop` only, which lies within it.

    >>> runs_of_crop(Crop(np.array([[True]]), 1, 0), (2, 2)).tolist()
    [1, 1, 2]
    """
    height, width = size
    framed = np.pad(crop.pixels.astype(np.int8), ((1, 1), (0, 0)))
    column, row = np.nonzero(np.diff(framed, axis=0).T)  # where runs of 1s begin and, in turn, end
    places = (column + crop.left) * height + row + crop.top
    # A run that ends with a column goes on where the next column begins with 1.
    joins = np.flatnonzero((places[1:] == places[:-1]) & (np.arange(len(places) - 1) % 2 == 1))
    places = np.delete(places, np.concatenate((joins, joins + 1)))
    ends = np.concatenate(([0], places, [height * width]))
    runs = np.diff(ends)
    return (runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs).astype(np.int32)


def crop_of_runs(runs: np.ndarray, size: Size) -> Crop:
    """The columns and rows of a mask between which it has pixels; nothing at (0, 0) where it has none."""
    height = size[0]
    ends = np.cumsum(runs, dtype=np.int64)
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[stops > starts], stops[stops > starts]
    if not len(starts):
        return Crop(np.zeros((0, 0), dtype=bool), 0, 0)
    left, right = int(starts[0] // height), int((stops[-1] - 1) // height) + 1
    if (starts // height == (stops - 1) // height).all():
        top, bottom = int((starts % height).min()), int(((stops - 1) % height).max()) + 1
    else:
        top, bottom = 0, height
    changes = np.zeros((right - left) * height + 1, dtype=np.int8)
    changes[starts - left * height] = 1
    changes[stops - left * height] -= 1
    columns = np.cumsum(changes[:-1], dtype=np.int8).reshape(right - left, height)
    return Crop(np.ascontiguousarray(columns[:, top:bottom].T).astype(bool), top, left)
