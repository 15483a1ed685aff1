"""A data set of objects in tiles: images cut along a grid, each object with what of it is in a tile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from piip.data.conversion.together import flat_names, of_one_list
from piip.data.detection.annotations import CocoData, CocoImage, CocoObject
from piip.data.detection.coco import read_split
from piip.data.detection.dataset import load_image
from piip.data.detection.splits import find_splits
from piip.data.image_files import ImageError
from piip.data.report import CheckReport, DataError
from piip.data.seeding import generator
from piip.data.whole_images import UNDECODABLE
from piip.data.windows import FileImage, headers_up_to
from piip.files import comparable, write_json
from piip.tiles.clipped import clipped, share_within
from piip.tiles.grid import Tile, grid
from piip.tiles.pixels import copy_whole, is_whole, save_tile, tile_stem, tile_suffix

PIECE = "piece of an object, of which the tile has less than `keep` (another tile has more)"
NOWHERE = "object of which no tile has as much as `keep`"
PIECES_ONLY = "tile with nothing but such pieces or crowd regions"
EMPTY = "tile without objects, beyond the share of `empty`"


@dataclass(frozen=True)
class Cutting:
    """How images are cut into tiles."""

    side: int
    """of a tile, in pixels"""
    overlap: float
    """share of the side that neighbours have in common at least"""
    keep: float
    """least share of an object's box that is in a tile"""
    empty: float
    """most of the tiles that are without objects, as a share"""
    max_pixels: int | None = None
    """of an image that is too large to be decoded: its tiles are then read from the file one by one"""

    def __post_init__(self) -> None:
        grid((1, 1), self.side, self.overlap)  # which knows what these may be
        for name, share in (("keep", self.keep), ("empty", self.empty)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} {share}: use a share from 0 to 1")


class Part(NamedTuple):
    """One tile of one image."""

    image: int
    """position in the data"""
    tile: Tile
    objects: tuple[CocoObject, ...]
    """in the tile's pixels"""


def tile_objects(source: str | Path, out: Path, cutting: Cutting) -> Mapping[str, CheckReport]:
    """Write the tiles of all splits as COCO files; the reports are of what was written and left out.

    Raises DataError where a split cannot be used, or has no image that can be decoded.
    """
    with headers_up_to(cutting.max_pixels):
        opened = {str(split): read_split(place) for split, place in find_splits(source).items()}
    data = of_one_list({split: one for split, (one, _) in opened.items()})
    return {split: _tile_split(data[split], opened[split][1], split, out, cutting) for split in data}


def _tile_split(data: CocoData, report: CheckReport, split: str, out: Path, cutting: Cutting) -> CheckReport:
    parts = _chosen([part for i in range(len(data.images)) for part in _parts(i, data.images[i], cutting, report)],
                    data, cutting.empty, report)  # fmt: skip
    names = _write_images(parts, data, out / split, cutting.max_pixels, report)
    written = [part for part, name in zip(parts, names, strict=True) if name]
    if not written:
        raise DataError(f"{data.source}: no tile could be written{report.first_reason()}")
    records = [
        CocoImage(number, out / split / name, _size(part.tile), True, part.objects)
        for number, (part, name) in enumerate(zip(written, filter(None, names), strict=True), start=1)
    ]
    content = replace(data, images=records).to_coco()
    pairs = zip(written, records, content["images"], strict=True)
    for part, tile, record in pairs:
        whole = data.images[part.image]
        record["file_name"] = tile.path.name
        record["tile_of"] = {"id": whole.id, "file_name": whole.path.name, "left": part.tile.left, "top": part.tile.top}
    objects = [obj for record in records for obj in record.objects]
    for annotation, obj in zip(content["annotations"], objects, strict=True):
        annotation["part_of"] = obj.annotation_id
    write_json(out / "annotations" / f"instances_{split}.json", content)
    return _counted(report, data, len(records), objects)


def _parts(position: int, image: CocoImage, cutting: Cutting, report: CheckReport) -> Iterator[Part]:
    """The tiles of an image that can be used: those with objects, and those in which nothing at all is."""
    tiles = grid(image.size, cutting.side, cutting.overlap)
    kept: list[list[CocoObject]] = [[] for _ in tiles]
    met = [False] * len(tiles)
    for obj in image.objects:
        where = f"annotation {obj.annotation_id} of image {image.id} ({image.path.name})"
        pieces, found = 0, False
        for number, tile in enumerate(tiles):
            share = share_within(obj.box, tile)
            if share <= 0:
                continue
            met[number] = True
            piece = clipped(obj, tile) if obj.crowd or share >= cutting.keep else None
            if piece is not None:
                kept[number].append(piece)
                found = True
            pieces += piece is None
        if not found:
            report.add("left out", NOWHERE, where)
        for _ in range(pieces if found and not obj.crowd else 0):
            report.add("note", PIECE, where)
    for tile, objects, something in zip(tiles, kept, met, strict=True):
        if something and all(obj.crowd for obj in objects):
            where = f"({tile.left}, {tile.top}) of image {image.id} ({image.path.name})"
            report.add("left out", PIECES_ONLY, where)
            continue
        yield Part(position, tile, tuple(objects))


def _chosen(parts: list[Part], data: CocoData, empty: float, report: CheckReport) -> list[Part]:
    """All tiles with objects, and of the others as many as are `empty` of all, the same ones each time.

    All of them in data without any objects.
    """
    full = sum(bool(part.objects) for part in parts)
    others = [number for number, part in enumerate(parts) if not part.objects]
    most = len(others) if empty == 1 or not full else min(len(others), round(full * empty / (1 - empty)))
    order = torch.randperm(len(others), generator=generator(0)).tolist()
    left_out = {others[number] for number in order[most:]}
    for number in sorted(left_out):
        part = parts[number]
        image = data.images[part.image]
        report.add("left out", EMPTY, f"({part.tile.left}, {part.tile.top}) of image {image.id} ({image.path.name})")
    return [part for number, part in enumerate(parts) if number not in left_out]


def _write_images(
    parts: list[Part], data: CocoData, folder: Path, max_pixels: int | None, report: CheckReport
) -> list[str | None]:
    """The file name of each tile, None where the image cannot be decoded."""
    stems = flat_names([image.path for image in data.images])
    taken = {comparable(Path(stem).stem) for stem in stems}
    names: list[str | None] = []
    for position, of_image in groupby(parts, key=lambda part: part.image):
        image, stem = data.images[position], stems[position]
        tiles = [part.tile for part in of_image]
        if is_whole(tiles[0], image.size):
            copy_whole(image.path, folder / stem)
            names.append(stem)
            continue
        written: list[str] = []
        try:
            with _pixels_of(image, max_pixels) as pixels:
                for tile in tiles:
                    written.append(tile_stem(Path(stem).stem, tile, taken) + tile_suffix(image.path))
                    save_tile(pixels, tile, folder / written[-1])
        except ImageError as error:
            report.add("left out", UNDECODABLE, f"image {image.id}: {error}")
            for name in written:
                (folder / name).unlink(missing_ok=True)
            names += [None] * len(tiles)
        else:
            names += written
    return names


@contextmanager
def _pixels_of(image: CocoImage, max_pixels: int | None) -> Iterator[np.ndarray | FileImage]:
    """All pixels of an image, or of one that is too large the file, of which parts can be read."""
    try:
        pixels = load_image(image, lambda size: size)
    except ImageError:
        if max_pixels is None:
            raise
        pixels = None
    if pixels is not None:
        yield pixels
        return
    with FileImage(image.path, max_pixels or 0) as file:
        if file.orientation != 1 and image.upright:
            raise ImageError(f"{image.path}: has to be turned to be upright, which is not done with parts of a file; "
                             "save it upright")  # fmt: skip
        yield file


def _counted(report: CheckReport, data: CocoData, images: int, objects: list[CocoObject]) -> CheckReport:
    """The findings about the source, with the numbers of what was written."""
    labels = Counter(obj.label for obj in objects if not obj.crowd)
    counts = {name: labels[label] for label, name in enumerate(data.classes)}
    count = labels.total()
    return replace(report, images=images, listed=images, objects=count, crowds=len(objects) - count,
                   class_counts=counts)  # fmt: skip


def _size(tile: Tile) -> tuple[int, int]:
    return tile.bottom - tile.top, tile.right - tile.left
