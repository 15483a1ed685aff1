"""What the borders of tiles cut becomes one object, and what is two stays two."""

import numpy as np
import pytest
import torch

from piip.structures import Size
from piip.tiles.found import Found
from piip.tiles.grid import grid
from piip.tiles.merging import merged

SIDE = 100


def seen(objects, size: Size, overlap: float = 0.2, noise: float = 0.0, masks: bool = False, least: float = 6):
    """What a perfect detector finds in the tiles: of each object (x1, y1, x2, y2[, label]) the part in the tile.

    Parts thinner than `least` are not found; every side is off by up to `noise` pixels. With masks an object may be a
    function from rows and columns to pixels, whose box follows from them.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    whole = []
    for item in objects:
        if callable(item):
            pixels, label = np.asarray(item(rows, columns)), 0
        else:
            x1, y1, x2, y2 = item[:4]
            pixels, label = (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2), (*item, 0)[4]
        whole.append((pixels, label))

    found = []
    for tile in grid(size, SIDE, overlap):
        boxes, labels, dense = [], [], []
        for pixels, label in whole:
            part = pixels[tile.top : tile.bottom, tile.left : tile.right]
            if not part.any():
                continue
            y, x = np.nonzero(part)
            if min(x.max() + 1 - x.min(), y.max() + 1 - y.min()) < least:
                continue
            box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) + rng.uniform(-noise, noise, 4)
            boxes.append(np.clip(box, 0, [*part.shape[::-1]] * 2))
            labels.append(label)
            dense.append(part)
        prediction = {
            "boxes": torch.tensor(np.array(boxes).reshape(-1, 4)).float(),
            "scores": torch.from_numpy(rng.uniform(0.5, 1, len(boxes))),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }
        if masks:
            prediction["masks"] = torch.from_numpy(np.array(dense).reshape(-1, *part.shape))
        found.append((tile, prediction))
    return merged(Found.of(found, size))


def boxes_of(prediction) -> list[list[float]]:
    return sorted(prediction["boxes"].tolist())


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_a_long_object_over_four_tiles_is_one(overlap, noise):
    prediction, _ = seen([(20, 30, 380, 60)], (100, 400), overlap, noise)
    assert len(prediction["boxes"]) == 1
    assert prediction["boxes"][0].tolist() == pytest.approx([20, 30, 380, 60], abs=noise + 0.01)


@pytest.mark.parametrize("overlap", [0.0, 0.2])
def test_an_object_over_a_corner_and_one_as_large_as_many_tiles(overlap):
    for box in ((60, 50, 150, 140), (10, 15, 390, 380)):
        prediction, _ = seen([box], (400, 400), overlap, 1.0)
        assert len(prediction["boxes"]) == 1
        assert prediction["boxes"][0].tolist() == pytest.approx(box, abs=1.5)


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.4])
def test_a_crowd_stays_as_many(overlap):
    """Objects of 12 pixels, 3 apart, at every place to the borders."""
    crowd = [(x, y, x + 12, y + 12) for y in range(2, 285, 15) for x in range(2, 285, 15)]
    prediction, _ = seen(crowd, (300, 300), overlap, least=2)
    assert boxes_of(prediction) == sorted([float(side) for side in box] for box in crowd)


def test_long_neighbours_are_not_joined_to_each_other():
    stripes = [(10, y, 390, y + 8) for y in range(5, 95, 10)]
    prediction, _ = seen(stripes, (100, 400), 0.2, 0.5)
    assert len(prediction["boxes"]) == len(stripes)
    for box, stripe in zip(sorted(prediction["boxes"].tolist(), key=lambda box: box[1]), stripes, strict=True):
        assert box == pytest.approx(stripe, abs=0.6)


def test_classes_are_kept_apart():
    prediction, _ = seen([(20, 30, 280, 60, 0), (20, 30, 280, 60, 1)], (100, 300))
    assert sorted(prediction["labels"].tolist()) == [0, 1]


def test_a_whole_object_is_not_stretched_by_what_another_tile_shows_of_it():
    """Its part in the second tile is off by some pixels; the first shows it whole."""
    found = [
        (tile, {"boxes": torch.tensor([box]), "scores": torch.tensor([score]), "labels": torch.tensor([0])})
        for tile, box, score in zip(
            grid((100, 180), SIDE, 0.2), ([60.0, 40, 92, 60], [0.0, 36, 14, 63]), (0.6, 0.9), strict=True
        )
    ]
    prediction, _ = merged(Found.of(found, (100, 180)))
    assert boxes_of(prediction) == [[60, 40, 92, 60]]


def slanted(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A bar from the upper left to the lower right."""
    return (np.abs(rows - 20 - columns * 0.6) < 7) & (columns > 15) & (columns < 370)


def ring(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    distance = np.hypot(rows - 150, columns - 200)
    return (distance > 95) & (distance < 120)


@pytest.mark.parametrize("shape", [slanted, ring])
def test_masks_are_joined_to_the_pixel(shape):
    size = (300, 400)
    prediction, masks = seen([shape], size, masks=True, least=1)
    assert masks is not None
    assert len(masks) == len(prediction["boxes"]) == 1
    rows, columns = np.mgrid[: size[0], : size[1]]
    assert np.array_equal(masks.dense()[0].numpy(), shape(rows, columns))


def test_slanted_bars_side_by_side_are_as_many_by_their_masks():
    bars = [lambda r, c, at=at: (np.abs(r - at - c * 0.6) < 5) & (c > 15) & (c < 370) for at in (0, 20, 40)]
    prediction, masks = seen(bars, (300, 400), masks=True, least=1)
    assert masks is not None
    assert len(prediction["boxes"]) == 3
    rows, columns = np.mgrid[:300, :400]
    assert sorted(masks.areas()) == sorted(int(bar(rows, columns).sum()) for bar in bars)


def test_nothing_found():
    prediction, masks = seen([], (300, 400))
    assert prediction["boxes"].shape == (0, 4)
    assert masks is None
