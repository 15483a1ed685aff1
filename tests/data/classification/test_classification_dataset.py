"""What a classifier is trained on: transforms, targets and mixtures, and that all of it follows from counters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from class_folders import write_classes
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import v2

from piip.config import Preprocess
from piip.data import decode
from piip.data.augmentation import ClassAugmentation
from piip.data.batches import train_loader
from piip.data.classification.dataset import ClassificationDataset, Mixtures, smoothed
from piip.data.classification.images import ClassData, open_class_split
from piip.data.classification.transforms import ClassTestTransform, ClassTrainTransform, build_policy, middle_square
from piip.data.image_files import ImageError
from piip.structures import Batch
from piip.training.settings import Settings

SIDE = 16
PREPROCESS = Preprocess(long_side=SIDE, short_side=SIDE, pad_multiple=1)
PLAIN = ClassAugmentation(policy=None, mixup=0, cutmix=0, label_smoothing=0)


@pytest.fixture
def data(tmp_path: Path) -> ClassData:
    return open_class_split(write_classes(tmp_path / "train", 4), "train")


def dataset(data: ClassData, seed: int = 0, augmentation: ClassAugmentation = PLAIN) -> ClassificationDataset:
    return ClassificationDataset(data, ClassTrainTransform(PREPROCESS, augmentation), seed, augmentation)


def batches(data: ClassData, augmentation: ClassAugmentation, **settings: int) -> list[Batch]:
    usual = {"batch_size": 5, "seed": 3, "epoch": 1, "pad_multiple": 1}
    return list(train_loader(dataset(data, 3, augmentation), **(usual | settings)))


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        torch.equal(a.images, b.images) and torch.equal(torch.stack(a.targets), torch.stack(b.targets))
        for a, b in zip(first, second, strict=True)
    )


# -- transforms ------------------------------------------------------------------------------------------------------


def test_evaluation_sees_the_middle_square_as_pillow_resizes_it():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    resized = Image.fromarray(pixels).resize((24, 16), Image.Resampling.BICUBIC).crop((4, 0, 20, 16))
    ours = middle_square(torch.from_numpy(pixels).permute(2, 0, 1), SIDE)
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(resized).astype(int)).max() <= 2
    image = ClassTestTransform(PREPROCESS)(torch.from_numpy(pixels).permute(2, 0, 1))
    torch.testing.assert_close(image, (ours.float() - 127.5) / 127.5)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (16, 17)])
def test_evaluation_takes_any_shape(size):
    assert ClassTestTransform(PREPROCESS)(torch.zeros(3, *size, dtype=torch.uint8)).shape == (3, SIDE, SIDE)


@pytest.mark.parametrize("policy", [None, "randaugment", "augmix", "trivialaugment"])
def test_training_images_differ_from_draw_to_draw(policy):
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 30, 20), dtype=np.uint8))
    transform = ClassTrainTransform(PREPROCESS, ClassAugmentation(policy=policy, erase=0.5))
    torch.manual_seed(1)
    first, second = transform(image), transform(image)
    assert first.shape == second.shape == (3, SIDE, SIDE)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(transform(image), first)


def test_without_changes_training_sees_what_evaluation_sees():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 30, 20), dtype=np.uint8))
    still = ClassAugmentation(area=(1, 1), flip=0, policy=None)
    assert torch.equal(ClassTrainTransform(PREPROCESS, still)(image), ClassTestTransform(PREPROCESS)(image))
    flipped = ClassAugmentation(area=(1, 1), flip=1, policy=None)
    assert torch.equal(ClassTrainTransform(PREPROCESS, flipped)(image), ClassTestTransform(PREPROCESS)(image).flip(2))


def test_turns_show_a_classifier_the_square_from_all_sides():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8))
    transform = ClassTrainTransform(PREPROCESS, ClassAugmentation(area=(1, 1), flip=0, turn=0.75, policy=None))
    seen = ClassTestTransform(PREPROCESS)(image)
    ways = [torch.rot90(seen, quarters, (1, 2)) for quarters in range(4)]
    found = set()
    for seed in range(40):
        torch.manual_seed(seed)
        out = transform(image)
        found |= {quarters for quarters, way in enumerate(ways) if torch.equal(out, way)}
    assert found == {0, 1, 2, 3}


def test_policies_are_torchvision_s():
    policy = build_policy(ClassAugmentation(policy="randaugment", strength=0.3), PREPROCESS)
    assert isinstance(policy, v2.RandAugment)
    assert (policy.num_ops, policy.magnitude, policy.num_magnitude_bins) == (2, 9, 31)
    augmix = build_policy(ClassAugmentation(policy="augmix", strength=0.3), PREPROCESS)
    assert isinstance(augmix, v2.AugMix)
    assert augmix.severity == 3


# -- targets and mixtures --------------------------------------------------------------------------------------------


def test_targets():
    torch.testing.assert_close(smoothed(1, 4, 0.0), torch.tensor([0.0, 1.0, 0.0, 0.0]))
    torch.testing.assert_close(smoothed(1, 4, 0.2), torch.tensor([0.05, 0.85, 0.05, 0.05]))


def test_a_sample(data):
    sample = dataset(data)[0, 5]
    assert sample.index == 5
    assert sample.original_size == (12, 10)
    assert sample.target.tolist() == [0.0, 1.0, 0.0]
    assert dataset(data).file_of(5) == str(data.images[5].path)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixtures_of_neighbours(kind):
    settings = {"mixup": 0.0, "cutmix": 0.0} | {kind: 1.0}
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, SIDE, SIDE).contiguous()
    targets = torch.eye(4)
    torch.manual_seed(3)
    mixed, shares = Mixtures(ClassAugmentation(**settings))(images, targets)
    for i in range(4):
        own = shares[i, i].item()
        assert 0.02 < own < 0.98
        assert shares[i, i - 1].item() == pytest.approx(1 - own, abs=1e-6)
        expected = own * i + (1 - own) * ((i - 1) % 4)
        assert mixed[i].mean().item() == pytest.approx(expected, abs=1e-5)
        values = mixed[i].unique()
        assert len(values) == (1 if kind == "mixup" else 2)


def test_half_of_the_batches_have_each_mixture():
    mixtures = Mixtures(ClassAugmentation())
    images, targets = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, SIDE, SIDE).contiguous(), torch.eye(2)
    blended = sum(len(mixtures(images, targets)[0][0].unique()) == 1 for _ in range(60))
    assert 15 < blended < 45
    never = Mixtures(ClassAugmentation(mix=0.0))
    assert torch.equal(never(images, targets)[0], images)


def test_mixed_batches_have_whole_targets(data):
    (first, *_) = batches(data, ClassAugmentation())
    targets = torch.stack(first.targets)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(5))
    assert (targets >= 0.1 / 3 - 1e-6).all()  # label smoothing
    assert not equal([first], batches(data, PLAIN)[:1])


# -- counters --------------------------------------------------------------------------------------------------------


def test_batches_follow_from_seed_epoch_and_number(data):
    mixed = ClassAugmentation(erase=0.3)
    expected = batches(data, mixed)
    torch.rand(7)
    assert equal(batches(data, mixed), expected)
    assert equal(batches(data, mixed, start_batch=1), expected[1:])  # as after a resume
    assert not equal(batches(data, mixed, epoch=2), expected)
    state = torch.get_rng_state()
    batches(data, mixed)
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_change_nothing(data):
    assert equal(batches(data, ClassAugmentation(), workers=2), batches(data, ClassAugmentation()))


def test_a_file_that_breaks_during_training_is_named(data):
    path = data.images[2].path
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=path.name):
        dataset(data)[0, 2]


# -- settings --------------------------------------------------------------------------------------------------------


def test_settings_choose_the_augmentation_by_its_kind():
    settings = Settings.model_validate({"augmentation": {"kind": "classification", "mixup": 0.2}})
    assert settings.augmentation == ClassAugmentation(mixup=0.2)
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    with pytest.raises(ValidationError, match="zoom"):
        Settings.model_validate({"augmentation": {"kind": "classification", "zoom": (0.5, 2)}})
    with pytest.raises(ValidationError, match="must not be larger"):
        ClassAugmentation(area=(0.5, 0.2))


@pytest.mark.parametrize("augmentation", [None, PLAIN.model_copy(update={"area": (0.5, 1.0)})])
def test_a_large_photo_is_decoded_smaller(data: ClassData, augmentation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Preprocess(long_side=1, short_side=1, pad_multiple=1)
    transform = ClassTestTransform(small) if augmentation is None else ClassTrainTransform(small, augmentation)
    whole = ClassificationDataset(data, transform)[0, 0]
    monkeypatch.setattr(decode, "LARGE", 0)
    sizes: list[int] = []
    monkeypatch.setattr(decode, "_reduced", lambda image, part: sizes.append(part) or image.reduce(part))
    sample = ClassificationDataset(data, transform)[0, 0]
    assert sizes
    assert (sample.original_size, sample.image.shape) == (whole.original_size, whole.image.shape)
