import colorsys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.mask_sets import make_masks

from piip.config import Preprocess
from piip.data import decode
from piip.data.augmentation import CropAugmentation
from piip.data.batches import train_loader
from piip.data.segmentation.dataset import SegmentationDataset
from piip.data.segmentation.masks import open_masks
from piip.data.segmentation.transforms import MaskTestTransform, MaskTrainTransform, distorted, hsv, rgb, varied
from piip.structures import IGNORED

PREPROCESS = Preprocess(long_side=96, short_side=64, pad_multiple=32)
PLAIN = CropAugmentation(distortion=0.0, largest_share=1.0)


def scene(height: int = 48, width: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pixel's grey level is ten times its label, so that the two can be compared after any geometry."""
    labels = torch.arange(4)[:, None].repeat_interleave(height // 4, dim=0).expand(-1, width).clone()
    labels[:, width // 2 :] += 4
    return (labels * 10).to(torch.uint8).expand(3, -1, -1).contiguous(), labels.to(torch.int16)


def levels(image: torch.Tensor) -> torch.Tensor:
    return image[0] * PREPROCESS.std[0] + PREPROCESS.mean[0]


def test_image_and_labels_move_together():
    transform = MaskTrainTransform(PREPROCESS, PLAIN)
    for seed in range(12):
        torch.manual_seed(seed)
        image, labels = transform(*scene())
        assert image.shape == (3, 64, 64)
        assert labels.shape == (64, 64)
        known = labels != IGNORED
        agree = ((levels(image) / 10).round() == labels)[known].float().mean()
        assert agree > 0.85, f"seed {seed}: {agree}"  # the rest are borders, which the bilinear resize blurs


def test_a_turn_takes_labels_and_padding_along():
    """An image smaller than the crop in one direction: after a quarter it is so in the other."""
    transform = MaskTrainTransform(PREPROCESS, PLAIN.model_copy(update={"turn": 1.0, "resize": (0.5, 0.5)}))
    shapes = set()
    for seed in range(12):
        torch.manual_seed(seed)
        image, labels = transform(*scene())
        known = labels != IGNORED
        shapes.add((int(known.any(1).sum()), int(known.any(0).sum())))
        assert ((levels(image) / 10).round() == labels)[known].float().mean() > 0.8
        assert (image[:, ~known] == 0).all()
    assert shapes == {(29, 48), (48, 29)}


def test_what_the_crop_lacks_is_padded_and_ignored():
    small = CropAugmentation(resize=(0.5, 0.5), distortion=0.0)
    image, labels = MaskTrainTransform(PREPROCESS, small)(*scene())
    assert (labels[:29, :48] != IGNORED).all()
    assert (labels[29:] == IGNORED).all()
    assert (labels[:, 48:] == IGNORED).all()
    assert (image[:, labels == IGNORED] == 0).all()


def test_the_resize_has_the_range_that_was_asked_for():
    transform = MaskTrainTransform(PREPROCESS, CropAugmentation(resize=(0.5, 2.0)))
    torch.manual_seed(0)
    sizes = {transform._random_size((48, 80)) for _ in range(300)}
    widths = [width for _, width in sizes]
    assert min(widths) in range(48, 54)
    assert max(widths) in range(184, 193)
    assert all(abs(height * 80 - width * 48) <= 64 for height, width in sizes)


def test_crops_hold_several_classes():
    labels = torch.zeros(64, 400, dtype=torch.int16)
    labels[:, 360:] = 1
    image = torch.zeros(3, 64, 400, dtype=torch.uint8)
    preprocess = Preprocess(long_side=400, short_side=64)
    shares = {}
    for limit in (0.75, 1.0):
        transform = MaskTrainTransform(
            preprocess, CropAugmentation(resize=(1.0, 1.0), largest_share=limit, distortion=0.0)
        )
        torch.manual_seed(0)
        mixed = [len(transform(image, labels)[1].unique()) > 1 for _ in range(60)]
        shares[limit] = sum(mixed) / len(mixed)
    assert shares[0.75] > 2 * shares[1.0]
    assert not varied(labels, 0.75)
    assert not varied(torch.full((4, 4), IGNORED), 0.75)


def test_the_flip_flips_both():
    always = CropAugmentation(resize=(1.0, 1.0), flip=1.0, distortion=0.0, crop=96, largest_share=1.0)
    never = always.model_copy(update={"flip": 0.0})
    (flipped, flipped_labels), (image, labels) = (
        MaskTrainTransform(PREPROCESS, one)(*scene(60, 96)) for one in (always, never)
    )
    assert torch.equal(flipped_labels[:60], labels[:60].flip(-1))
    assert torch.allclose(flipped[:, :60], image[:, :60].flip(-1))


def test_the_distortion_changes_colours_only_and_not_always():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    torch.manual_seed(0)
    many = [distorted(image, 1.0) for _ in range(40)]
    assert all(one.shape == image.shape and one.dtype == torch.uint8 for one in many)
    unchanged = sum(torch.equal(one, image) for one in many)
    assert 0 < unchanged < 20
    assert any((one.float() - image.float()).abs().mean() > 10 for one in many)


def test_colours_are_those_of_opencv():
    """Hue in steps of two degrees, saturation and value in 0 .. 255, rounded; and back to within that rounding."""
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 60, 60), generator=draw, dtype=torch.uint8)
    image[:, :3] = torch.tensor([0, 0, 0, 255, 255, 255, 40, 40, 40]).view(3, 3).T[..., None].to(torch.uint8)
    hue, saturation, value = hsv(image)
    for y, x in torch.cartesian_prod(torch.arange(60), torch.arange(0, 60, 7)).tolist():
        h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
        distance = abs(int(hue[y, x]) - 180 * h)
        assert min(distance, 180 - distance) <= 0.5001
        assert abs(int(saturation[y, x]) - 255 * s) <= 0.5001
        assert int(value[y, x]) == v
        back = colorsys.hsv_to_rgb(int(hue[y, x]) / 180, int(saturation[y, x]) / 255, v)
        assert torch.allclose(rgb(hue, saturation, value)[:, y, x].float(), torch.tensor(back).float(), atol=0.501)


def test_values_are_cut_off_and_saturation_is_that_of_hsv(monkeypatch):
    """One change at a time, by half of its reach downwards. Grey has no saturation, so nothing happens to it."""
    image = torch.tensor([[200, 55], [101, 55], [31, 55]], dtype=torch.uint8).view(3, 1, 2)
    expected = {  # of the coloured pixel
        "brightness": [184, 85, 15],
        "contrast": [150, 75, 23],  # 75.75 and 23.25, cut off
        "saturation": [200, 124, 74],  # three quarters of 215 are 161.25, cut off
    }
    for index, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        chosen = [0.9, 0.9, 0.9, 0.9, 0.9]
        chosen[1 + index] = 0.1
        draws = iter([torch.tensor(chosen), torch.full((4,), 0.25)])
        monkeypatch.setattr(torch, "rand", lambda count, draws=draws: next(draws))
        changed = distorted(image, 1.0)
        monkeypatch.undo()
        if name in expected:
            assert changed[:, 0, 0].tolist() == expected[name], name
        grey = {"brightness": 39, "contrast": 41}.get(name, 55)
        assert changed[:, 0, 1].tolist() == [grey] * 3, name
        if name == "hue":
            assert int(hsv(changed)[0][0, 0]) == (int(hsv(image)[0][0, 0]) - 9) % 180


@pytest.mark.parametrize(("capped", "width"), [(True, 2048), (False, 2560)])
def test_a_very_wide_image_in_a_test(capped, width):
    """The released segmentors look at it with a short side of 512 pixels, however wide it is."""
    preprocess = Preprocess(long_side=2048, short_side=512, long_side_in_tests=capped)
    image = torch.zeros(3, 100, 500, dtype=torch.uint8)
    assert MaskTestTransform(preprocess).image(image).shape[-1] == width


def test_samples_follow_from_seed_epoch_and_index_alone(tmp_path):
    data = open_masks(make_masks(tmp_path), "train")
    dataset = SegmentationDataset(data, MaskTrainTransform(PREPROCESS, CropAugmentation()), seed=3)
    torch.manual_seed(1)
    first = dataset[(2, 1)]
    state = torch.get_rng_state()
    again = dataset[(2, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.image, dataset[(3, 1)].image)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(tmp_path, workers):
    data = open_masks(make_masks(tmp_path), "train")
    dataset = SegmentationDataset(data, MaskTrainTransform(PREPROCESS, CropAugmentation()), seed=3)
    (batch,) = train_loader(dataset, batch_size=4, seed=0, epoch=1, workers=workers, pad_multiple=32)
    expected = [dataset[(1, index)] for index in batch.indices]
    assert torch.equal(batch.images, torch.stack([sample.image for sample in expected]))
    assert all(torch.equal(a, b.target) for a, b in zip(batch.targets, expected, strict=True))


def test_evaluation_keeps_the_labels_as_annotated():
    image, labels = scene()
    resized, kept = MaskTestTransform(PREPROCESS)(image, labels)
    assert resized.shape == (3, 58, 96)
    assert np.array_equal(kept.numpy(), labels.numpy())


def test_wrong_ranges_are_refused():
    with pytest.raises(ValidationError, match="first factor"):
        CropAugmentation(resize=(2.0, 0.5))


@pytest.mark.parametrize("make", [MaskTestTransform, lambda small: MaskTrainTransform(small, CropAugmentation(flip=0))])
def test_a_large_photo_is_decoded_smaller_to_the_same_labels(tmp_path, make, monkeypatch):
    data = open_masks(make_masks(tmp_path), "train")
    dataset = SegmentationDataset(data, make(Preprocess(long_side=12, short_side=8)), seed=3)
    whole = dataset[0, 0]
    monkeypatch.setattr(decode, "LARGE", 0)
    sizes = []
    monkeypatch.setattr(decode, "_reduced", lambda image, part: sizes.append(part) or image.reduce(part))
    small = dataset[0, 0]
    assert sizes
    assert small.image.shape == whole.image.shape
    assert torch.equal(small.target, whole.target)


def test_tiles_are_cut_in_the_pixels_of_the_file():
    """A tile of 24 pixels, then resized to the model's side, so that a pixel of the file is 2 2/3 of the network's."""
    image, labels = scene(96, 160)
    transform = MaskTrainTransform(PREPROCESS, CropAugmentation(tiles=24, resize=(1, 1), distortion=0, flip=0))
    assert transform.needed((96, 160)) == (96, 160)
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        out, target = transform(image, labels)
        assert out.shape == (3, 64, 64)
        known = target[target != IGNORED]
        assert len(known) == 64 * 64
        assert 2 <= len(known.unique()) <= 4, "24 pixels meet at most two of the bands, which have 24, in each half"
        agree = ((levels(out) / 10).round() == target).float().mean()
        assert agree > 0.85
        seen.add(tuple(known.unique().tolist()))
    assert len(seen) > 2
    whole = MaskTrainTransform(PREPROCESS, CropAugmentation(tiles=500, resize=(1, 1), distortion=0, flip=0))
    plain = MaskTrainTransform(PREPROCESS, CropAugmentation(resize=(1, 1), distortion=0, flip=0, largest_share=1))
    assert whole(image, labels)[0].shape == plain(image, labels)[0].shape
