"""Samples to padded batches, in an order that a run can be resumed in, on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from piip.data.readable import Readable, Unread, divided, empty_batch
from piip.data.readers import Readers
from piip.data.samples import Key, KeysOfStep, Sample, SampleDataset
from piip.data.seeding import generator
from piip.data.surround import Surround
from piip.structures import Batch, Size, View, size_of


def collate(samples: list[Sample], pad_multiple: int, smallest: int = 1) -> Batch:
    """One batch: images padded right and below with zeros to the largest, rounded up to `pad_multiple`.

    Also to `smallest` pixels, with which a model can work (`config.Backbone.smallest_image`).
    """
    sizes: list[Size] = [(sample.image.shape[1], sample.image.shape[2]) for sample in samples]
    padded = [padded_size(size, pad_multiple, smallest) for size in sizes]
    height, width = (max(sides) for sides in zip(*padded, strict=True))
    images = torch.zeros(len(samples), 3, height, width, dtype=torch.float32)
    for image, sample, (h, w) in zip(images, samples, sizes, strict=True):
        image[:, :h, :w] = sample.image
    return Batch(
        images,
        image_sizes=sizes,
        original_sizes=[sample.original_size for sample in samples],
        targets=[sample.target for sample in samples],
        indices=[sample.index for sample in samples],
        padded_sizes=[(_round_up(h, pad_multiple), _round_up(w, pad_multiple)) for h, w in sizes],
        views=_views(samples, images),
        unreadable=tuple(problem for sample in samples for problem in sample.unreadable),
    )


def _views(samples: Sequence[Sample], images: Tensor) -> tuple[View | None, ...]:
    """What each branch sees, padded like `images`; one `View` for all branches that see the same."""
    branches = max(len(sample.views) for sample in samples)
    made: dict[tuple[int, ...], View | None] = {}
    views = []
    for branch in range(branches):
        seen = [sample.views[branch] if sample.views else None for sample in samples]
        key = tuple(map(id, seen))
        if key not in made:
            made[key] = _view(seen, images) if any(seen) else None
        views.append(made[key])
    return tuple(views)


def _view(seen: Sequence[Surround | None], images: Tensor) -> View:
    """Of each image, or the image itself where it has no view."""
    height, width = size_of(images)
    padded, frames = images.clone(), torch.tensor([[1.0, 1.0], [0.0, 0.0]]).repeat(len(seen), 1, 1)
    for image, frame, surround in zip(padded, frames, seen, strict=True):
        if surround is not None:
            h, w = size_of(surround.image)
            image[:, :h, :w] = surround.image
            frame[0] = surround.frame[0]
            frame[1] = surround.frame[1] / torch.tensor([width, height])
    return View(padded, frames)


def padded_size(size: Size, pad_multiple: int, smallest: int = 1) -> Size:
    """(height, width) of an image with the padding that `collate` gives it alone."""
    height, width = (_round_up(max(side, smallest), pad_multiple) for side in size)
    return height, width


def in_batches(sizes: Sequence[Size], batch_size: int) -> list[list[int]]:
    """Positions in batches of images of one size, by the first of each batch."""
    batches: list[list[int]] = []
    unfinished: dict[Size, list[int]] = {}
    for position, size in enumerate(sizes):
        if size not in unfinished:
            batches.append(unfinished.setdefault(size, []))
        unfinished[size].append(position)
        if len(unfinished[size]) == batch_size:
            del unfinished[size]
    return batches


class EpochSampler(Sampler[list[Key]]):
    """The keys of one epoch's batches for one process, from `start_batch` on.

    All processes together take `batch_size * world` consecutive images of one order per step, each of them neighbours
    among these, so that the order does not depend on `world`. Every process has the same number of batches, as
    otherwise the processes would wait for each other forever. The last batches may be smaller, and differ by an image.
    No image is left out and none counts twice: where there are fewer images than processes, those without one get
    another's, see `is_spare`.

    With `groups`, the group of every image, a batch has images of one group: in the order, they are together by
    `together`, the images of a step. Only the last images of an epoch, of every group less than that, may be mixed.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        epoch: int,
        start_batch: int = 0,
        rank: int = 0,
        world: int = 1,
        groups: Sequence[int] | None = None,
        together: int | None = None,
    ) -> None:
        """`together`: None: the images of a step. Else that of the run's beginning, on another number of processes."""
        if count < 1:
            raise ValueError("the data set has no images to train on")
        if batch_size < 1 or start_batch < 0 or not 0 <= rank < world:
            raise ValueError(f"batch_size {batch_size} must be at least 1, start_batch {start_batch} not negative "
                             f"and rank {rank} in 0..{world - 1}")  # fmt: skip
        if groups is not None and len(groups) != count:
            raise ValueError(f"{len(groups)} groups for {count} images")
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, epoch
        self.start_batch, self.rank, self.world, self.groups = start_batch, rank, world, groups
        self.together = together or batch_size * world

    @property
    def batches(self) -> int:
        """Batches of the whole epoch on each process, skipped ones included."""
        return -(-self.count // (self.batch_size * self.world))

    def __len__(self) -> int:
        return max(0, self.batches - self.start_batch)

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order()
        step = self.batch_size * self.world
        for start in range(self.start_batch * step, len(order), step):
            keys = [(self.epoch, index) for index in order[start : start + step]]
            if self.world == 1:
                yield keys
                continue
            first, end = _part(len(keys), self.rank, self.world)
            yield KeysOfStep(keys[first:end], keys, first)

    def _order(self) -> list[int]:
        draw = generator(self.seed, self.epoch)
        order = torch.randperm(self.count, generator=draw).tolist()
        return order if self.groups is None else grouped(order, self.groups, self.together, draw)


def _part(count: int, rank: int, world: int) -> tuple[int, int]:
    """The first of `count` images that are a process's, and the one after its last; one at least."""
    if count < world:
        return rank % count, rank % count + 1
    each, more = divmod(count, world)
    first = rank * each + min(rank, more)
    return first, first + each + (rank < more)


def is_spare(count: int, batch_size: int, batch: int, rank: int, world: int) -> bool:
    """Whether a process has another one's image in a batch of an epoch of `count` images, as there is none for it."""
    return rank >= count - batch * batch_size * world


def grouped(order: list[int], groups: Sequence[int], batch_size: int, draw: torch.Generator) -> list[int]:
    """`order` with the images of a group together by `batch_size`; what is left of each group comes last.

    >>> grouped([0, 1, 2, 3, 4], groups=[7, 8, 7, 8, 7], batch_size=2, draw=torch.Generator().manual_seed(0))
    [0, 2, 1, 3, 4]
    """
    members: dict[int, list[int]] = {}
    for index in order:
        members.setdefault(groups[index], []).append(index)
    full, rest = list[list[int]](), list[int]()
    for group in sorted(members):
        mine = members[group]
        end = len(mine) - len(mine) % batch_size
        full += [mine[start : start + batch_size] for start in range(0, end, batch_size)]
        rest += mine[end:]
    shuffled = [full[index] for index in torch.randperm(len(full), generator=draw).tolist()]
    return [index for batch in shuffled for index in batch] + rest


def train_loader(
    dataset: SampleDataset,
    batch_size: int,
    seed: int,
    epoch: int,
    start_batch: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pad_multiple: int = 32,
    smallest: int = 1,
    groups: Sequence[int] | None = None,
    together: int | None = None,
) -> DataLoader[Batch]:
    """The batches of one epoch for one process (`batch_size` is per process), from `start_batch` on.

    What comes out depends on neither `workers` nor on what was loaded before, and torch's global generator is not
    touched. `groups` and `together`: see `EpochSampler`.
    """
    sampler = EpochSampler(len(dataset), batch_size, seed, epoch, start_batch, rank, world, groups, together)
    return _loader(dataset, sampler, workers, partial(collate, pad_multiple=pad_multiple, smallest=smallest))


def eval_loader(
    dataset: SampleDataset,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pad_multiple: int = 32,
    smallest: int = 1,
    sizes: Sequence[Size] | None = None,
) -> DataLoader[Batch]:
    """Every image exactly once over all processes, in the data set's order; process r has batches r, r + world, ...

    A batch is the same on any number of processes, so that what is predicted is, to the last bit.

    Args:
        sizes: (height, width) of every image as the network takes it, before padding. With them a batch holds images
            of one padded size only, so that no image's padding depends on the others; their order is then another.

    An image that cannot be read is left out and named in `Batch.missing`; a batch of which nothing is left has none.

    Processes may differ in batches, so nothing inside the loop may wait for the others.
    """
    count = len(dataset)
    padded = [(0, 0)] * count if sizes is None else [padded_size(size, pad_multiple, smallest) for size in sizes]
    batches = [[(0, place) for place in places] for places in in_batches(padded, batch_size)[rank::world]]
    together = partial(_collate_readable, pad_multiple=pad_multiple, smallest=smallest)
    return _loader(Readable(dataset), batches, workers, together)


def _collate_readable(parts: list[Sample | Unread], pad_multiple: int, smallest: int) -> Batch:
    """A batch of those that could be read, which may be none, and what is missing of it."""
    samples, missing = divided(parts)
    return replace(collate(samples, pad_multiple, smallest), missing=missing) if samples else empty_batch(missing)


def _loader(
    dataset: SampleDataset | Readable,
    batches: Sampler[list[Key]] | list[list[Key]],
    workers: int,
    collate_batch: Callable[[list[Any]], Batch],
) -> DataLoader[Batch]:
    return Readers(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate_batch,
        generator=torch.Generator(),  # else the loader draws its workers' seeds from the model's generator
    )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
