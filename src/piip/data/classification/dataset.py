"""The data set that training and evaluation of classifiers read: images by (epoch, position), mixed batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2

from piip.data.classification.augmentation import ClassAugmentation
from piip.data.classification.images import ClassData
from piip.data.classification.transforms import ClassTestTransform, ClassTrainTransform
from piip.data.decode import decode_for
from piip.data.samples import Key, KeysOfStep, Sample
from piip.data.seeding import seeded

Transform = ClassTrainTransform | ClassTestTransform


class ClassificationDataset(Dataset[Sample]):
    """Samples whose target is the shares of the classes in the image: float32 [K], summing to 1.

    Whatever is random follows from the seed, the epoch and the images alone: for one image from its position, for the
    mixtures of a batch from the positions of all its images, which follow from the number of the batch.
    """

    def __init__(
        self, data: ClassData, transform: Transform, seed: int = 0, augmentation: ClassAugmentation | None = None
    ) -> None:
        """`augmentation`: for its mixtures and smoothed labels, in training."""
        self.data = data
        self.transform = transform
        self.seed = seed
        self.smoothing = augmentation.label_smoothing if augmentation else 0.0
        self.mixtures = Mixtures(augmentation) if augmentation and (augmentation.mixup or augmentation.cutmix) else None

    def __len__(self) -> int:
        return len(self.data.images)

    def orientations(self) -> None:
        """Training samples have one shape."""

    def __getitem__(self, key: Key) -> Sample:
        """One image, not mixed. Raises `ImageError`, naming the file, if it cannot be decoded."""
        epoch, index = key
        path, label = self.data.images[index]
        pixels, size = decode_for(path, self.transform.needed)
        with seeded(self.seed, epoch, index):
            image = self.transform(torch.from_numpy(pixels).permute(2, 0, 1))
        return Sample(image, smoothed(label, len(self.data.classes), self.smoothing), size, index)

    def __getitems__(self, keys: Sequence[Key]) -> list[Sample]:
        """The images of a batch, mixed with each other; torch's loader asks for batches in this way.

        Of several processes (`KeysOfStep`) each image is mixed as it would be in the batch of all: with the one before
        it there, which may be another process's and is read here, too.
        """
        if self.mixtures is None:
            return [self[key] for key in keys]
        step = keys.step if isinstance(keys, KeysOfStep) else keys
        extra = [] if step is keys else [step[keys.first - 1]]  # type: ignore[attr-defined]
        samples = [self[key] for key in (*extra, *keys)]
        images = torch.stack([sample.image for sample in samples])
        targets = torch.stack([sample.target for sample in samples])
        with seeded(self.seed, step[0][0], *(index for _, index in step)):
            images, targets = self.mixtures(images, targets)
        mixed = [
            replace(sample, image=image, target=target)
            for sample, image, target in zip(samples, images, targets, strict=True)
        ]
        return mixed[len(extra) :]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in label order."""
        return self.data.classes

    def contents(self) -> Iterator[tuple[Path, str]]:
        """The file of each image, and its label."""
        for path, label in self.data.images:
            yield path, str(label)

    def file_of(self, index: int) -> str:
        """The file of `Sample.index`, for messages."""
        return str(self.data.images[index].path)


class Mixtures:
    """Blends neighbouring images of a batch (mixup) or pastes parts of them (cutmix), and their targets alike."""

    def __init__(self, augmentation: ClassAugmentation) -> None:
        self.share = augmentation.mix
        kinds = ((v2.MixUp, augmentation.mixup), (v2.CutMix, augmentation.cutmix))
        self.kinds = [kind(alpha=alpha) for kind, alpha in kinds if alpha]

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] and [B, K], mixed; drawn from torch's global generator."""
        if torch.rand(()) >= self.share:
            return images, targets
        chosen = self.kinds[int(torch.randint(len(self.kinds), ()))]
        mixed: tuple[Tensor, Tensor] = chosen(images, targets)
        return mixed


def smoothed(label: int, classes: int, smoothing: float) -> Tensor:
    """The target [K] of an image: all on its class, but for the share `smoothing` that all classes divide."""
    target = F.one_hot(torch.tensor(label), classes).float()
    return target * (1 - smoothing) + smoothing / classes
