"""Tiles as an augmentation: where they lie, what of the objects is left, and that they follow from the seed alone."""

import pytest
import torch
from coco_records import HEIGHT, WIDTH, annotation
from pydantic import ValidationError
from tests.data.detection.test_detection_transforms import bounds, scene

from piip.config import Preprocess
from piip.data.augmentation import Augmentation, RandomTile, from_scratch
from piip.data.detection.coco import read_coco
from piip.data.detection.dataset import DetectionDataset
from piip.data.detection.random_tile import random_cut, random_place, shares_within
from piip.data.detection.transforms import TrainTransform
from piip.data.seeding import seeded
from piip.training.settings import Settings
from piip.training.start import build_settings

BOXES = torch.tensor([[10.0, 20.0, 30.0, 40.0], [150.5, 60.0, 180.5, 90.0], [0.0, 0.0, 190.0, 95.0]])


def place(seed: int, settings: RandomTile, boxes: torch.Tensor = BOXES, size=(100, 200)):
    with seeded(seed):
        return random_place(size, boxes, settings)


def test_a_tile_lies_in_the_image_around_an_object_that_fits():
    settings = RandomTile(side=50, keep=0.9, empty=0)
    met = set()
    for seed in range(60):
        found = place(seed, settings)
        assert (found.right - found.left, found.bottom - found.top) == (50, 50)
        assert min(found.left, found.top) >= 0
        assert found.right <= 200
        assert found.bottom <= 100
        whole = (shares_within(BOXES, found) == 1).nonzero()[:, 0].tolist()
        assert whole, "the object around which it was drawn"
        met |= set(whole)
    assert met == {0, 1}, "the third is larger than any tile"


def test_a_share_of_the_tiles_is_empty_where_there_is_room():
    few = BOXES[:2]
    touched = [bool((shares_within(few, place(seed, RandomTile(side=40, empty=0.25), few)) > 0).any())
               for seed in range(400)]  # fmt: skip
    assert 60 < touched.count(False) < 140, "of 400, 100 on average"
    full = torch.tensor([[0.0, 0.0, 200.0, 100.0]])
    assert (shares_within(full, place(0, RandomTile(side=40, empty=1, keep=0), full)) > 0).all()
    nothing = place(0, RandomTile(side=40), torch.zeros(0, 4))
    assert nothing.right - nothing.left == 40


def test_an_image_that_is_smaller_than_a_tile_is_taken_whole():
    low = place(0, RandomTile(side=150))
    assert (low.right - low.left, low.top, low.bottom) == (150, 0, 100)
    assert place(1, RandomTile(side=500)) == (0, 0, 200, 100)


@pytest.mark.parametrize(("keep", "expected"), [(0.0, [0, 1]), (0.5, [0, 1]), (0.51, [1])])
def test_labels_are_clipped_and_dropped_below_the_share(keep, expected, monkeypatch):
    monkeypatch.setattr("piip.data.detection.random_tile.random_place", lambda *_: (20, 10, 60, 50))
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [22.0, 12.0, 58.0, 44.0], [0.0, 0.0, 20.0, 50.0]])
    image, boxes, labels, masks = scene(60, 80, boxes.int().tolist())
    cut = random_cut(image, boxes, labels, masks, RandomTile(side=40, keep=keep))
    assert cut.size == (40, 40)
    assert cut.labels.tolist() == expected, "the third only touches the tile"
    placed = {0: [0, 10, 10, 30], 1: [2, 2, 38, 34]}
    assert cut.boxes.tolist() == [placed[label] for label in expected]
    assert torch.equal(cut.image, image[:, 10:50, 20:60])
    for position, label in enumerate(expected):
        assert bounds(cut.masks([position])[0]) == placed[label]


def test_a_tile_goes_on_through_the_other_changes():
    preprocess = Preprocess(long_side=80, short_side=80)
    augmentation = Augmentation(flip=1.0, tiles=RandomTile(side=40, keep=0.5, empty=0))
    box = [30, 30, 50, 50]
    for seed in range(8):
        with seeded(seed):
            out, target = TrainTransform(preprocess, augmentation)(*scene(100, 200, [box]))
        assert out.shape == (3, 80, 80)
        assert (target.boxes[0, 2:] - target.boxes[0, :2]).tolist() == [40, 40], "20 pixels, twice as large"
        assert bounds(target.masks[0]) == target.boxes[0].tolist()
        assert (out[0] > 0)[target.masks[0] > 0].all()


def test_samples_follow_from_seed_epoch_and_image_alone(write):
    data, _ = read_coco(*write([annotation(1), annotation(2, image_id=2, bbox=[20, 15, 8, 8])]))
    augmentation = from_scratch().model_copy(update={"tiles": RandomTile(side=16)})
    dataset = DetectionDataset(data, TrainTransform(Preprocess(long_side=WIDTH, short_side=HEIGHT), augmentation), 3)
    first = [dataset[epoch, 0] for epoch in range(4)]
    torch.rand(7)
    again = [dataset[epoch, 0] for epoch in reversed(range(4))][::-1]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.target.boxes, other.target.boxes)
        assert torch.equal(one.target.masks, other.target.masks)
    assert any(one.image.shape != first[0].image.shape or not torch.equal(one.image, first[0].image) for one in first)


def test_settings_are_those_of_the_command_line_and_old_ones_have_none():
    assert Settings.model_validate({"augmentation": {"flip": 0.5}}).augmentation.tiles is None
    given = build_settings({}, {"augmentation": {"tiles": {"side": 640, "empty": 0.2}}}).augmentation
    assert given.tiles == RandomTile(side=640, keep=0.3, empty=0.2)
    assert build_settings({}, {"augmentation": {"tiles": 640}}).augmentation.tiles == RandomTile(side=640)
    assert given.scaled(2).tiles == given.tiles, "pixels of the files"
    with pytest.raises(ValidationError):
        RandomTile(side=0)
