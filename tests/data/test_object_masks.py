"""Masks as run lengths are the masks, whatever their shape and place."""

import numpy as np
import pytest
import torch

from piip.data.object_masks import Crop, Masks, crop_of_runs, runs_of_crop
from piip.data.run_lengths import encode_mask, run_lengths


def shapes(height: int = 9, width: int = 7) -> np.ndarray:
    """Noise of several densities, nothing, everything, edges and corners, [N, H, W] bool."""
    rng = np.random.default_rng(0)
    masks = [rng.random((height, width)) < density for density in (0.1, 0.5, 0.9) for _ in range(5)]
    empty = np.zeros((height, width), dtype=bool)
    masks += [empty, ~empty]
    for where in (
        (0, 0),
        (-1, -1),
        (0, -1),
        (-1, 0),
        (slice(None), 3),
        (4, slice(None)),
        (slice(5, None), slice(2, 5)),
    ):
        mask = empty.copy()
        mask[where] = True
        masks.append(mask)
    return np.stack(masks)


def test_dense_masks_come_back():
    dense = torch.from_numpy(shapes())
    masks = Masks.of(dense)
    assert len(masks) == len(dense)
    assert torch.equal(masks.dense(), dense)
    assert masks.areas() == dense.sum((1, 2)).tolist()
    assert torch.equal(masks[[3, 0]].dense(), dense[[3, 0]])
    assert masks.to_coco() == [encode_mask(mask) for mask in shapes()]
    assert Masks.of(dense[:0]).dense().shape == (0, 9, 7)


@pytest.mark.parametrize("dense", shapes())
@pytest.mark.parametrize("area", [(0, 9, 0, 7), (3, 9, 0, 7), (0, 4, 2, 7), (2, 5, 1, 3), (4, 4, 2, 2)])
def test_a_crop_has_the_run_lengths_of_the_whole(dense, area):
    top, bottom, left, right = area
    whole = np.zeros_like(dense)
    whole[top:bottom, left:right] = dense[top:bottom, left:right]
    runs = runs_of_crop(Crop(dense[top:bottom, left:right], top, left), whole.shape)
    assert runs.tolist() == run_lengths(whole).tolist()
    crop = crop_of_runs(runs, whole.shape)
    again = np.zeros_like(whole)
    again[crop.top : crop.top + len(crop.pixels), crop.left : crop.left + crop.pixels.shape[1]] = crop.pixels
    assert np.array_equal(again, whole)
    if whole.any():
        assert crop.pixels[:, [0, -1]].any(axis=0).all()
