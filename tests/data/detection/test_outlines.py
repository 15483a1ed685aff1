"""Outlines: what is checked, and that what passes is rasterised as COCO means it."""

import re
import sys

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask

from piip.data.detection.outlines import checked_outline, outline_area, outline_bounds, rasterise, rectangle

SIZE = (30, 40)
SQUARE = [4, 6, 16, 6, 16, 16, 4, 16]


def random_mask(rng: np.random.Generator) -> np.ndarray:
    height, width = rng.integers(1, 50, 2)
    mask = rng.random((height, width)) < rng.random()
    mask[rng.integers(height), rng.integers(width)] = True
    return mask


def test_polygons_are_kept_as_they_are():
    outline, faults = checked_outline([SQUARE, [20, 20, 30, 20, 25, 28]], SIZE)
    assert faults == []
    assert outline == [SQUARE, [20, 20, 30, 20, 25, 28]]
    mask = rasterise(outline, SIZE)
    assert mask.shape == SIZE
    assert mask.dtype == np.uint8
    assert mask[6:16, 4:16].all()
    assert mask[21, 25] == 1
    assert mask.sum() == pytest.approx(120 + 40, abs=10)
    assert outline_area(outline) == pytest.approx(160)
    assert outline_bounds(outline, SIZE) == (4, 6, 30, 28)


@pytest.mark.parametrize("value", [None, [], {}, ""])
def test_no_outline_is_no_fault(value):
    assert checked_outline(value, SIZE) == (None, [])


@pytest.mark.parametrize("value", [SQUARE, [[x, y] for x, y in zip(SQUARE[::2], SQUARE[1::2], strict=True)]])
def test_a_polygon_that_is_not_nested_as_usual(value):
    assert checked_outline(value, SIZE) == ([SQUARE], [])


@pytest.mark.parametrize(
    ("polygon", "fault"),
    [
        ([1, 2, 3, 4], "fewer than three points"),
        ([1, 2, 3, 4, 5, 6, 7], "odd number"),
        ([1, 2, 3, 4, 5, float("nan")], "NaN or infinite"),
        ([1, 2, 3, 4, 5, float("inf")], "NaN or infinite"),
        ([1, 2, 3, 4, 5, "x"], "something else than numbers"),
        ([1, 2, 3, 4, 5, None], "something else than numbers|NaN"),
        ([1, 2, 3, 4, 5, 10**400], "something else than numbers"),
        ([1, 1, 5, 5, 9, 9], "without an area"),
        ([100, 100, 120, 100, 120, 120], "outside the image"),
    ],
)
def test_faulty_polygons(polygon, fault):
    outline, faults = checked_outline([polygon, SQUARE], SIZE)
    assert outline == [SQUARE]
    assert len(faults) == 1
    assert re.search(fault, faults[0])
    assert checked_outline([polygon], SIZE)[0] is None


@pytest.mark.parametrize("value", ["text", 5, True, ["a", "b"], [[[1, 2], [3]]], {"counts": [1]}, [{}]])
def test_things_that_are_no_outline(value):
    outline, faults = checked_outline(value, SIZE)
    assert outline is None
    assert faults


def test_wild_coordinates_are_cut_where_the_image_ends():
    """A huge diamond around the image covers it all; a line far away keeps its slope inside."""
    diamond = [20 - 1e9, 15, 20, 15 - 1e9, 20 + 1e9, 15, 20, 15 + 1e9]
    outline, faults = checked_outline([diamond], SIZE)
    assert faults == ["polygon that reaches outside the image (cut)"]
    assert np.abs(outline).max() <= 41
    assert rasterise(outline, SIZE).all()
    half = [0, 0, 1e6, 1e6, 0, 1e6]  # below the diagonal x = y
    mask = rasterise(checked_outline([half], SIZE)[0], SIZE).astype(bool)
    y, x = np.mgrid[:30, :40]
    assert mask[y > x + 1].all()
    assert not mask[y < x - 1].any()


def test_polygons_that_reach_a_little_outside_rasterise_like_uncut_ones():
    rng = np.random.default_rng(0)
    for _ in range(50):
        polygon = (rng.uniform(-0.4, 1.4, (5, 2)) * SIZE[::-1]).ravel().tolist()
        outline, _ = checked_outline([polygon], SIZE)
        if outline is None:
            continue
        uncut = coco_mask.decode(coco_mask.frPyObjects([polygon], *SIZE))[..., 0]
        assert (rasterise(outline, SIZE) != uncut).mean() < 0.02


def test_run_lengths_compressed_and_not():
    rng = np.random.default_rng(0)
    for _ in range(100):
        mask = random_mask(rng)
        text = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
        flat = mask.ravel(order="F")
        ends = np.flatnonzero(np.append(flat[1:] != flat[:-1], True)) + 1
        counts = np.diff(ends, prepend=0).tolist()
        counts = [0, *counts] if flat[0] else counts
        for form in (text, counts):
            outline, faults = checked_outline({"size": list(mask.shape), "counts": form}, mask.shape)
            assert faults == []
            assert np.array_equal(rasterise(outline, mask.shape), mask)
            assert outline_area(outline) == mask.sum()
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert outline_bounds(outline, mask.shape) == box


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ({"size": [30, 40], "counts": [100, 100]}, "add up"),
        ({"size": [30, 40], "counts": [1300, -100]}, "negative"),
        ({"size": [40, 30], "counts": [600, 600]}, "another image size"),
        ({"size": [30, 40], "counts": [1200]}, "without a pixel"),
        ({"size": [30, 40], "counts": [600, 600.0]}, "neither"),
        ({"size": [30, 40], "counts": None}, "neither"),
        ({"size": [30, 40]}, "neither"),
        ({"size": "30x40", "counts": [600, 600]}, "without a size"),
        ({"counts": [600, 600]}, "without a size"),
        ({"size": [30, 40], "counts": "ab\x00"}, "damaged"),
        ({"size": [30, 40], "counts": "é"}, "damaged"),
        ({"size": [30, 40], "counts": "P" * 50}, "damaged"),
        ({"size": [30, 40], "counts": ""}, "add up"),
    ],
)
def test_faulty_run_lengths(runs, fault):
    outline, faults = checked_outline(runs, SIZE)
    assert outline is None
    assert len(faults) == 1
    assert fault in faults[0]


def test_random_text_as_run_lengths_never_crashes():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        text = "".join(chr(c) for c in rng.integers(40, 120, rng.integers(0, 12)))
        outline, _ = checked_outline({"size": list(SIZE), "counts": text}, SIZE)
        if outline is not None:
            assert rasterise(outline, SIZE).sum() == outline_area(outline)


def test_rectangle_covers_the_box():
    mask = rasterise(rectangle((3.0, 2.0, 9.0, 8.0)), SIZE)
    assert mask[2:8, 3:9].all()
    assert mask.sum() == 36


def test_a_missing_extra_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(ImportError, match=r'pip install "piip\[train\]"'):
        rasterise([SQUARE], SIZE)
