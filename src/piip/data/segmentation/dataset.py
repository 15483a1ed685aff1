"""The data set that training and evaluation of segmentors read: one image with the label of every pixel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import Dataset

from piip.data.samples import Key, Sample
from piip.data.seeding import seeded
from piip.data.segmentation.masks import MaskData, load_pair
from piip.data.segmentation.transforms import MaskTestTransform, MaskTrainTransform

Transform = MaskTrainTransform | MaskTestTransform


class SegmentationDataset(Dataset[Sample]):
    """Samples by (epoch, position): whatever is random follows from the seed, the epoch and the image alone."""

    def __init__(self, data: MaskData, transform: Transform, seed: int = 0) -> None:
        self.data = data
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.data.images)

    def orientations(self) -> None:
        """Training samples have one shape."""

    def __getitem__(self, key: Key) -> Sample:
        """Raises `ImageError`, naming the file, if it cannot be decoded or has changed since the check."""
        epoch, index = key
        record = self.data.images[index]
        pixels, values = load_pair(record, self.data.description, self.transform.needed)
        image, labels = torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(values)
        with seeded(self.seed, epoch, index):
            network_input, target, views = self.transform.seen(image, labels)
        return Sample(network_input, target, record.size, index, views)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in label order."""
        return self.data.classes

    def contents(self) -> Iterator[tuple[Path, str]]:
        """The file of each image, and its mask's with the pixels of each class in all masks."""
        for image in self.data.images:
            yield image.path, f"{image.mask.name} of {self.data.pixels}"

    def file_of(self, index: int) -> str:
        """The file of `Sample.index`, for messages."""
        return str(self.data.images[index].path)
