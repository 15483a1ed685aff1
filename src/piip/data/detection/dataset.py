"""The data set that training and evaluation of detectors read: one image, decoded, transformed, with targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from piip.data.decode import decode_for
from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.data.detection.outlines import rasterise
from piip.data.detection.packed import PackedImages
from piip.data.detection.transforms import TestTransform, TrainTransform
from piip.data.image_files import ImageError
from piip.data.samples import Key, Sample
from piip.data.seeding import seeded
from piip.structures import Size

Transform = TrainTransform | TestTransform
MOST = 1 << 62
"""pixels"""
WRITTEN = "{}: {:.1f} {:.1f} {:.1f} {:.1f}".format
"""a label and a box, as a checkpoint's record of its data has them"""


class DetectionDataset(Dataset[Sample]):
    """Samples by (epoch, position): whatever is random follows from the seed, the epoch and the image alone.

    A sample's `index` is the image's position in `data.images`, also where empty images are left out.
    """

    def __init__(
        self,
        data: CocoData,
        transform: Transform,
        seed: int = 0,
        keep_empty: bool = True,
        masks: bool = True,
        smallest: int = 0,
    ) -> None:
        """What is left out: images without any annotation unless `keep_empty`, those with a side of fewer pixels than
        `smallest`, and outlines unless `masks`."""  # fmt: skip
        self.data = data
        self.transform = transform
        self.seed = seed
        self.masks = masks and data.has_masks
        images = PackedImages.of(data.images)
        kept = (images.sizes().min(1, initial=MOST) >= smallest) & (keep_empty | (images.object_counts()[:, 0] > 0))
        self.indices: Sequence[int] = range(len(kept)) if kept.all() else np.flatnonzero(kept).tolist()
        """positions in `data.images`"""

    def __len__(self) -> int:
        return len(self.indices)

    def orientations(self) -> list[int]:
        """1 for every image that is wider than high, 0 for the others: in batches of one kind little is padded."""
        height, width = PackedImages.of(self.data.images).sizes()[self.indices].T
        wide: list[int] = (width > height).astype(int).tolist()
        return wide

    def __getitem__(self, key: Key) -> Sample:
        """Raises `ImageError`, naming the file, if it cannot be decoded or has changed since the check."""
        epoch, position = key
        index = self.indices[position]
        record = self.data.images[index]
        pixels = load_image(record, self.transform.needed)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        objects = training_objects(record)
        boxes = torch.tensor([obj.box for obj in objects], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([obj.label for obj in objects], dtype=torch.int64)
        masks = partial(rasterise_objects, objects, record.size) if self.masks else None
        with seeded(self.seed, epoch, index):
            network_input, target, views = self.transform.seen(image, boxes, labels, masks, record.size)
        return Sample(network_input, target, record.size, index, views)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in label order."""
        return self.data.classes

    def contents(self) -> Iterator[tuple[Path, str]]:
        """The file of each image, and the labels and boxes of its objects."""
        images = PackedImages.of(self.data.images)
        for index in self.indices:
            path, places = images.places(index)
            yield path, ", ".join([WRITTEN(label, *box) for label, box in places])

    def file_of(self, index: int) -> str:
        """The file of `Sample.index`, for messages."""
        return str(self.data.images[index].path)


def training_objects(image: CocoImage) -> list[CocoObject]:
    """The objects to learn from: crowd regions are not."""
    return [obj for obj in image.objects if not obj.crowd]


def load_image(image: CocoImage, needed: Callable[[Size], Size]) -> np.ndarray:
    """The pixels of a record, uint8 [H, W, 3], in the frame of its annotations; as `decode_for` of those `needed`."""
    pixels, size = decode_for(image.path, needed, upright=image.upright)
    if size != image.size:
        raise ImageError(f"{image.path}: {size[1]} x {size[0]} pixels, but {image.size[1]} x "
                         f"{image.size[0]} when the data was read; has the file changed?")  # fmt: skip
    return pixels


def rasterise_objects(objects: list[CocoObject], size: Size, positions: list[int]) -> Tensor:
    """Masks of the objects at these positions: uint8 [n, H, W], zeros where an object has no outline."""
    masks = np.zeros((len(positions), *size), dtype=np.uint8)
    for mask, position in zip(masks, positions, strict=True):
        outline = objects[position].segmentation
        if outline is not None:
            mask[:] = rasterise(outline, size)
    return torch.from_numpy(masks)
