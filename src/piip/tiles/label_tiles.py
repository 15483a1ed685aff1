"""A data set of label masks in tiles: image and mask cut alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from piip.data.conversion.labelled import write_classes
from piip.data.conversion.together import flat_names
from piip.data.decode import decode_image, decode_values
from piip.data.image_files import ImageError
from piip.data.report import DataError, Findings
from piip.data.segmentation.folders import find_mask_splits
from piip.data.segmentation.masks import MaskData, open_masks
from piip.data.whole_images import UNDECODABLE
from piip.files import comparable
from piip.tiles.grid import grid
from piip.tiles.pixels import copy_whole, is_whole, save_tile, tile_stem, tile_suffix

UNLABELLED = "tile without an annotated pixel"


def tile_labels(source: str | Path, out: Path, side: int, overlap: float) -> Mapping[str, Findings]:
    """Write `images/train/`, `masks/train/` and `classes.json`; the values of the masks stay as they are.

    Raises DataError where a split cannot be used, or has no image that can be decoded.
    """
    opened = {str(split): open_masks(source, split) for split in find_mask_splits(source)}
    for split, data in opened.items():
        names = flat_names([image.path for image in data.images])
        count = sum(_tile_image(data, position, names, split, out, side, overlap) for position in range(len(names)))
        if not count:
            raise DataError(f"{source}: no tile of {split} could be written{data.report.first_reason()}")
        data.report.images = count
    write_classes(next(iter(opened.values())).description, out)
    return {split: data.report for split, data in opened.items()}


def _tile_image(
    data: MaskData, position: int, names: Sequence[str], split: str, out: Path, side: int, overlap: float
) -> int:
    """How many tiles were written; `names` are those of the images."""
    image, name = data.images[position], names[position]
    images, masks = out / "images" / split, out / "masks" / split
    tiles = grid(image.size, side, overlap)
    if is_whole(tiles[0], image.size):
        copy_whole(image.path, images / name)
        copy_whole(image.mask, masks / f"{Path(name).stem}{image.mask.suffix}")
        return 1
    try:
        pixels, values = decode_image(image.path, upright=image.upright), decode_values(image.mask)
    except ImageError as error:
        data.report.add("left out", UNDECODABLE, str(error))
        return 0
    values = values.astype(np.uint8 if values.max() <= np.iinfo(np.uint8).max else np.uint16)
    written, taken = 0, {comparable(Path(other).stem) for other in names}
    for tile in tiles:
        there = values[tile.top : tile.bottom, tile.left : tile.right]
        if not np.isin(there, data.description.values).any():
            data.report.add("left out", UNLABELLED, f"({tile.left}, {tile.top}) of {image.path.name}")
            continue
        stem = tile_stem(Path(name).stem, tile, taken)
        save_tile(pixels, tile, images / f"{stem}{tile_suffix(image.path)}")
        save_tile(values, tile, masks / f"{stem}.png")
        written += 1
    return written
