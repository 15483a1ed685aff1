"""From images to what a network takes, here or in processes beside the one that runs the model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from piip.data.readers import Readers
from piip.prediction.listing import Paths
from piip.prediction.picture import Picture
from piip.prediction.preparing import InputTransform
from piip.prediction.sources import Failure, Source, opened

AHEAD = 4
"""images that each process reads ahead"""


class Prepared(NamedTuple):
    """An image that was read."""

    path: Path | None
    picture: Picture
    """what a result keeps of it"""
    pixels: Tensor | None
    """[H, W, 3] uint8 RGB, upright, for whoever asks soon; None where they are not at hand or not wanted"""
    network_input: Tensor
    """[3, h, w] float32, not padded"""
    milliseconds: float
    """that it took"""


@dataclass(frozen=True)
class Reader:
    """Reads one image; it knows nothing of the model, so that it can go to other processes.

    Args:
        transform: from uint8 [3, H, W] to the network's input without padding; it also says how much of a large photo
            it needs.
        pixels: whether the pixels of files are wanted beside it, which are read again where they are not.
        max_pixels: see `Options.max_pixels`.
        bgr: arrays have blue first.
    """

    transform: InputTransform
    pixels: bool = True
    max_pixels: int | None = None
    bgr: bool = False

    def __call__(self, source: Source) -> Prepared | Failure:
        """The image, or a `Failure` for a file that is broken; ValueError or TypeError for anything else wrong."""
        begun = time.perf_counter()
        found = opened(source, self.max_pixels, self.bgr, self.transform.needed)
        if isinstance(found, Failure):
            return found
        network_input = self.transform(torch.from_numpy(found.pixels).permute(2, 0, 1), found.picture.size)
        kept = None
        if found.picture.source is not None:
            whole = found.picture.pixels
            kept = torch.from_numpy(whole) if self.pixels and whole is not None else None
            found.picture.let_go()  # a tensor goes from one process to another without being copied
        return Prepared(found.path, found.picture, kept, network_input, 1000 * (time.perf_counter() - begun))


class _Files(Dataset[Prepared | Failure]):
    """What `Reader` makes of files, by their numbers."""

    def __init__(self, files: Paths, read: Reader) -> None:
        self.files, self.read = files, read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Prepared | Failure:
        return self.read(self.files[number])


def in_order(images: Iterable[Source], read: Reader, workers: int = 0) -> Iterator[Prepared | Failure]:
    """The images one by one; files are read ahead by `workers` processes, all else when it is its turn."""
    if not workers or not isinstance(images, Paths) or len(images) < 2:
        yield from map(read, images)
        return
    loader: Readers[Prepared | Failure] = Readers(
        _Files(images, read),
        batch_size=None,
        num_workers=min(workers, len(images)),
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else the loader draws its workers' seeds from the program's generator
    )
    for found in loader:
        yield found if isinstance(found, Failure) else found._replace(pixels=_own(found.pixels))


def _as_it_is(found: Prepared | Failure) -> Prepared | Failure:
    return found


def _own(pixels: Tensor | None) -> Tensor | None:
    """Results may be kept for a while, and memory shared between processes is scarce."""
    return None if pixels is None else pixels.clone()
