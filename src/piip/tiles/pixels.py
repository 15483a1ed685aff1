"""The pixels of tiles, from one image file to many."""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path

import numpy as np
from PIL import Image

from piip.data.image_files import is_jpeg
from piip.data.windows import FileImage
from piip.files import comparable
from piip.structures import Size
from piip.tiles.grid import Tile

JPEG_QUALITY = 95


def tile_suffix(path: Path) -> str:
    """The ending of the tiles of an image: JPEG stays JPEG, all else becomes PNG, which keeps each value."""
    return ".jpg" if is_jpeg(path) else ".png"


def tile_stem(stem: str, tile: Tile, taken: Container[str]) -> str:
    """The name of a tile of the image `stem`, with a number where an image of that name (`comparable`) is `taken`.

    >>> tile_stem("a", Tile(0, 0, 9, 9), {"a", "a_0_0"})
    'a_0_0-2'
    """
    plain = found = f"{stem}_{tile.left}_{tile.top}"
    number = 1
    while comparable(found) in taken:
        number += 1
        found = f"{plain}-{number}"
    return found


def save_tile(pixels: np.ndarray | FileImage, tile: Tile, path: Path) -> None:
    """Write the part of [H, W, 3] or [H, W] that is in a tile."""
    part = Image.fromarray(np.ascontiguousarray(pixels[tile.top : tile.bottom, tile.left : tile.right]))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        part.save(path, quality=JPEG_QUALITY, subsampling=0)
    else:
        part.save(path)


def copy_whole(source: Path, path: Path) -> None:
    """An image that is one tile stays as it is, to the byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, path)


def is_whole(tile: Tile, size: Size) -> bool:
    """Whether a tile is all of an image."""
    return (tile.right - tile.left, tile.bottom - tile.top) == size[::-1]
