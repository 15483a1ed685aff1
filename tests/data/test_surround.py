"""What a part of a photo has around it: a marked pixel is where the frame says, in every view."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from piip.config import Preprocess
from piip.data.augmentation import Augmentation, CropAugmentation
from piip.data.batches import collate
from piip.data.detection.transforms import TrainTransform
from piip.data.samples import Sample
from piip.data.seeding import seeded
from piip.data.segmentation.transforms import MaskTrainTransform
from piip.data.surround import Shown, Surround, Surroundings, Window, window_of

PREPROCESS = Preprocess(long_side=96, short_side=96, mean=(0, 0, 0), std=(1, 1, 1))
VIEWS = (1.0, 2.0, "image")


def marked(height: int, width: int, x: int, y: int) -> Tensor:
    """A black photo with a white square of 12 pixels around a place."""
    photo = torch.zeros(3, height, width, dtype=torch.uint8)
    photo[:, y - 6 : y + 6, x - 6 : x + 6] = 255
    return photo


def centre(image: Tensor) -> Tensor:
    """(x, y) in pixels of the middle of what is bright."""
    weights = image[0] / image[0].sum()
    y = (weights.sum(1) * (torch.arange(image.shape[1]) + 0.5)).sum()
    x = (weights.sum(0) * (torch.arange(image.shape[2]) + 0.5)).sum()
    return torch.stack((x, y))


@pytest.mark.parametrize(
    ("tile", "view", "window"),
    [
        ((150, 100, 250, 200), 2, (100, 50, 200, 200)),  # in the middle
        ((0, 0, 100, 100), 2, (0, 0, 200, 200)),  # moved off the borders
        ((300, 200, 400, 300), 2, (200, 100, 200, 200)),
        ((100, 100, 200, 200), 3.5, (0, 0, 350, 350)),  # higher than the photo: its upper border
        ((300, 200, 400, 300), "image", (0, 0, 400, 400)),
        ((300, 200, 400, 300), 50, (0, 0, 400, 400)),  # no larger than the photo needs
        ((0, 0, 400, 300), 2, None),
        ((0, 0, 400, 300), "image", None),
        ((50, 0, 150, 300), 2, (0, 0, 200, 600)),
    ],
)
def test_windows(tile: tuple[int, int, int, int], view: float | str, window: tuple[int, ...] | None) -> None:
    assert window_of(Shown.tile(*tile), view, (300, 400)) == (window and Window(*window))  # type: ignore[arg-type]


@pytest.mark.parametrize("corner", [(0, 0), (200, 100), (130, 60)])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_marked_place_of_a_tile_is_where_its_frame_says(
    corner: tuple[int, int], mirrored: bool, quarters: int
) -> None:
    left, top = corner
    photo = marked(220, 320, left + 70, top + 40)
    shown = Shown.tile(left, top, left + 100, top + 100).resized((80, 110))
    own = torch.nn.functional.interpolate(photo[None, :, top : top + 100, left : left + 100].float(), (80, 110))[0]
    if mirrored:
        own, shown = own.flip(-1), shown.flipped()
    own, shown = own.rot90(quarters, (-2, -1)), shown.turned(quarters)
    first, *others = Surroundings(photo, PREPROCESS, VIEWS).of(shown)
    assert first is None
    for surround in others:
        assert surround is not None
        assert surround.image.shape == own.shape == (3, *shown.size)
        expected = surround.frame[0] * centre(own) + surround.frame[1]
        torch.testing.assert_close(centre(surround.image), expected, atol=0.3, rtol=0)


def test_a_view_shows_the_photo_and_nothing_beyond_it() -> None:
    photo = torch.full((3, 100, 200), 255, dtype=torch.uint8)
    _, _, image = Surroundings(photo, PREPROCESS, VIEWS).of(Shown.tile(0, 0, 100, 100))
    assert image is not None
    assert (image.image[:, :50] == 255).all()
    assert (image.image[:, 50:] == 0).all()
    assert Surroundings(photo, PREPROCESS, VIEWS).of(Shown.tile(0, 0, 200, 100)) == ()
    assert Surroundings(photo, PREPROCESS, (1.0, 1.0)).of(Shown.tile(0, 0, 50, 50)) == ()


def test_what_tiles_share_is_made_once() -> None:
    around = Surroundings(torch.zeros(3, 100, 400, dtype=torch.uint8), PREPROCESS, (1.0, "image", "image"))
    (_, one, same), (_, other, _) = (around.of(Shown.tile(x, 0, x + 100, 100)) for x in (0, 100))
    assert one is same
    assert one is not None
    assert other is not None
    assert not torch.equal(one.frame, other.frame)
    assert len(around._last) == 1


AUGMENTATIONS = [
    Augmentation(tiles=100, zoom=(0.6, 1.6), turn=0.7),
    Augmentation(tiles=100, scales=(60, 96), crop={"scales": (70,), "sides": (40, 60)}, largest=90),
]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=["zoom", "scales"])
def test_what_happens_to_a_tile_in_training_happens_to_its_views(augmentation: Augmentation) -> None:
    photo, box = marked(220, 320, 160, 110), torch.tensor([[154.0, 104.0, 166.0, 116.0]])
    transform = TrainTransform(PREPROCESS, augmentation, VIEWS)
    compared = 0
    for seed in range(30):
        with seeded(seed):
            image, objects, views = transform.seen(photo, box, torch.tensor([0]))
        if not len(objects.boxes) or image[0].sum() == 0:
            continue
        x1, y1, x2, y2 = objects.boxes[0].tolist()
        if min(x1, y1) <= 1 or x2 >= image.shape[2] - 1 or y2 >= image.shape[1] - 1:
            continue  # cut
        assert views[0] is None
        for surround in views[1:]:
            if surround is None:
                continue
            assert surround.image.shape == image.shape
            expected = surround.frame[0] * torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2]) + surround.frame[1]
            torch.testing.assert_close(centre(surround.image), expected, atol=0.5, rtol=0)
            compared += 1
    assert compared > 20


def test_views_change_nothing_of_what_is_drawn_and_have_the_same_colours() -> None:
    photo = torch.full((3, 200, 200), 100, dtype=torch.uint8)
    box, label = torch.tensor([[90.0, 90.0, 110.0, 110.0]]), torch.tensor([0])
    augmentation = Augmentation(tiles=100, zoom=(1.0, 1.0), colour=0.5)
    images = []
    for views in ((), VIEWS):
        with seeded(3):
            image, _, around = TrainTransform(PREPROCESS, augmentation, views).seen(photo, box, label)
            images.append((image, torch.rand(())))
    assert all(map(torch.equal, *images))
    assert images[0][0][0, 0, 0] != 100
    for surround in around[1:]:
        assert surround is not None
        assert torch.equal(surround.image, images[0][0])
    whole = TrainTransform(PREPROCESS, Augmentation(flip=0), VIEWS).seen(photo, box, label)
    assert whole[2] == ()


def test_views_of_label_maps() -> None:
    photo = marked(220, 320, 160, 110)
    labels = (photo[0] > 0).to(torch.uint8)
    augmentation = CropAugmentation(tiles=150, resize=(0.7, 1.5), crop=64, largest_share=1, distortion=0.5, turn=0.5)
    transform = MaskTrainTransform(PREPROCESS, augmentation, VIEWS)
    compared = 0
    for seed in range(60):
        with seeded(seed):
            image, target, views = transform.seen(photo, labels)
        seen = (target == 1).float()[None]
        if seen.sum() == 0 or seen[:, [0, -1]].any() or seen[:, :, [0, -1]].any():
            continue
        for surround in views[1:]:
            assert surround is not None
            own = surround.frame[0] * centre(seen) + surround.frame[1]
            bright = (surround.image - surround.image.amin()).clamp(min=0)
            bright = bright * (bright > bright.amax() / 3)
            torch.testing.assert_close(centre(bright), own, atol=0.7, rtol=0)
            compared += 1
        assert image.shape == (3, 64, 64)
    assert compared > 6


def test_samples_with_and_without_views_are_one_batch() -> None:
    image, more = torch.ones(3, 40, 64), torch.full((3, 40, 64), 2.0)
    surround = Surround(more, torch.tensor([[0.5, 0.5], [16.0, 10.0]]))
    other = Surround(more + 1, torch.tensor([[0.25, 0.25], [0.0, 32.0]]))
    plain = Sample(torch.zeros(3, 64, 50), None, (64, 50), 0)
    batch = collate([Sample(image, None, (40, 64), 1, (None, surround, surround, other)), plain], 32)
    assert batch.views[0] is None
    assert batch.views[1] is batch.views[2]
    view = batch.views[1]
    assert view is not None
    assert view.images.shape == batch.images.shape == (2, 3, 64, 64)
    assert torch.equal(view.images[0, :, :40], more)
    assert (view.images[0, :, 40:] == 0).all()
    assert torch.equal(view.images[1], batch.images[1])
    frames = torch.tensor([[[0.5, 0.5], [0.25, 10 / 64]], [[1.0, 1.0], [0.0, 0.0]]])
    assert torch.equal(view.frame, frames)
    assert collate([plain], 32).views == ()
    last = replace(batch, targets=[]).to("cpu").double().views[3]
    assert last is not None
    assert last.frame[0, 1, 1] == 0.5
    assert last.images.dtype == torch.float64


def test_more_padding_shows_the_same_places() -> None:
    """As where the batches of several processes are padded alike."""
    image = torch.rand(3, 40, 64)
    surround = Surround(torch.rand(3, 40, 64), torch.tensor([[0.5, 0.25], [16.0, 10.0]]))
    samples = [Sample(image, None, (40, 64), 1, (None, surround, surround))]
    padded, wanted = collate(samples, 32).padded((96, 160)), collate(samples, 32, 160)
    wanted = replace(wanted, images=wanted.images[:, :, :96])
    assert torch.equal(padded.images, wanted.images)
    assert padded.views[0] is None
    assert padded.views[1] is padded.views[2]
    view, other = padded.views[1], wanted.views[1]
    assert view is not None
    assert other is not None
    assert torch.equal(view.images, other.images[:, :, :96])
    in_pixels = torch.tensor([160, 96])
    torch.testing.assert_close(view.frame[:, 1] * in_pixels, surround.frame[1][None])
    assert torch.equal(view.frame[:, 0], surround.frame[0][None])
    assert (padded.image_sizes, padded.padded_sizes) == ([(40, 64)], [(64, 64)])
