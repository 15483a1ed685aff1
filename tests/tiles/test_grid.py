"""Tiles cover the image, alike in size, with the overlap that was asked for."""

import numpy as np
import pytest

from piip.tiles.grid import grid
from piip.tiles.label_maps import joined


@pytest.mark.parametrize("size", [(100, 100), (101, 333), (77, 100), (64, 65), (1000, 30)])
@pytest.mark.parametrize(("side", "overlap"), [(64, 0.2), (64, 0.0), (50, 0.9), (100, 0.5), (2000, 0.2)])
def test_every_pixel_is_in_a_tile_and_neighbours_share_enough(size, side, overlap):
    seen = np.zeros(size, dtype=int)
    tiles = grid(size, side, overlap)
    for tile in tiles:
        assert (tile.bottom - tile.top, tile.right - tile.left) == (min(side, size[0]), min(side, size[1]))
        seen[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert seen.min() >= 1
    for starts in ({tile.left for tile in tiles}, {tile.top for tile in tiles}):
        steps = np.diff(sorted(starts))
        assert (steps <= max(1, side * (1 - overlap))).all()


def test_an_image_no_larger_than_a_tile_is_one():
    assert grid((30, 40), 40) == [(0, 0, 40, 30)]


@pytest.mark.parametrize(("side", "overlap"), [(0, 0.2), (10, 1.0), (10, -0.1)])
def test_what_makes_no_tiles_is_refused(side, overlap):
    with pytest.raises(ValueError, match="share"):
        grid((30, 40), side, overlap)


@pytest.mark.parametrize(("side", "overlap"), [(16, 0.3), (16, 0.0), (50, 0.2), (7, 0.8)])
def test_label_maps_of_tiles_are_that_of_the_image(side, overlap):
    import torch

    labels = torch.arange(40 * 47).reshape(40, 47)
    tiles = grid((40, 47), side, overlap)

    def part(tile):
        mine = labels[tile.top : tile.bottom, tile.left : tile.right].clone()
        if overlap and len(tiles) > 1:  # what a tile says at its very border is not taken, but at the image's
            inner = (tile.top > 0, tile.bottom < 40, tile.left > 0, tile.right < 47)
            for there, row in zip(inner, (mine[0], mine[-1], mine[:, 0], mine[:, -1]), strict=True):
                row[:] = -1 if there else row
        return {"labels": mine, "scores": mine / 2}

    whole = joined(((tile, part(tile)) for tile in tiles), tiles, (40, 47))
    assert torch.equal(whole["labels"], labels)
    assert torch.equal(whole["scores"], labels / 2)
