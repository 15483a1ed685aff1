"""Annotation records with nothing to remark or to repair, which are nearly all: checked some thousand at a time.

What is not sure to be such a record is left to `objects`, which looks at one after the other and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from piip.data.detection.image_records import CocoImage
from piip.data.detection.outlines import MARGIN, MIN_AREA
from piip.data.detection.packed_objects import FIELDS
from piip.data.detection.packed_outlines import packed_outline

TOLERANCE = 1.0
"""pixels that a box may reach beyond its image unchanged: the rounding of annotation tools. Training clips
boxes after its transforms anyway, and the numbers of an evaluation stay those of the file."""
SURE_AREA = 10 * MIN_AREA
"""square pixels: sums in another order differ by less"""

Polygons = list[list[float]]


class Plain(msgspec.Struct, gc=False):
    """An annotation as COCO writes it."""

    id: int
    image_id: int
    category_id: int
    area: float
    bbox: tuple[float, float, float, float]
    """x, y, width, height"""
    segmentation: Polygons | None = None
    iscrowd: int = 0


_FIELDS = attrgetter(*Plain.__struct_fields__)


def columns_of(block: Sequence[Plain]) -> Sequence[Sequence[Any]]:
    """Of each field of `Plain`, in their order, the values of all records."""
    return list(zip(*map(_FIELDS, block), strict=True)) if block else [()] * len(Plain.__struct_fields__)


class Rows(NamedTuple):
    """Objects that are as they should be."""

    places: np.ndarray
    """in the block of records, [N] int64"""
    positions: np.ndarray
    """of their images, [N] int64"""
    rows: np.ndarray
    """`FIELDS` [N]"""


class PlainObjects:
    """Makes rows of plain records."""

    def __init__(self, images: Mapping[int, CocoImage], labels: Mapping[int, int], repeated: Container[int]) -> None:
        """`labels` of the category ids; annotations with an id of `repeated` are none of ours."""
        self.positions = {image_id: position for position, image_id in enumerate(images)}
        self.sizes = np.array([image.size for image in images.values()], np.float64).reshape(-1, 2)
        self.labels, self.repeated = labels, repeated

    def rows(self, block: Sequence[Plain | None], texts: bytearray) -> Rows:
        """Those of the block that have nothing to remark; their outlines are put into `texts`."""
        places = [place for place, plain in enumerate(block) if plain is not None and self._is_known(plain)]
        known = [plain for place in places if (plain := block[place]) is not None]
        numbers, image_ids, categories, areas, boxes, outlines, crowds = columns_of(known)
        positions = np.fromiter(map(self.positions.__getitem__, image_ids), np.int64, len(known))
        sizes = self.sizes[positions]
        rows = np.zeros(len(known), FIELDS)
        ids = np.fromiter(numbers, np.int64, len(known))
        rows["low"], rows["high"] = ids.view(np.uint64), -(ids < 0).astype(np.int8)
        rows["label"] = np.fromiter(map(self.labels.__getitem__, categories), np.int64, len(known))
        rows["crowd"] = np.fromiter(crowds, np.int64, len(known))
        rows["area"] = np.fromiter(areas, np.float64, len(known))
        box = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(known)).reshape(-1, 4)
        with np.errstate(all="ignore"):
            rows["box"] = np.concatenate((box[:, :2], box[:, :2] + box[:, 2:]), axis=1)
            good = _good_boxes(box, rows["box"], sizes) & np.isfinite(rows["area"]) & (rows["area"] > 0)
            good &= _add_outlines(outlines, good, sizes, rows, texts)
        return Rows(np.array(places, np.int64)[good], positions[good], rows[good])

    def _is_known(self, plain: Plain) -> bool:
        return (
            plain.image_id in self.positions
            and plain.category_id in self.labels
            and abs(plain.id) < 1 << 63
            and plain.id not in self.repeated
            and plain.iscrowd in (0, 1)
        )


def _good_boxes(written: np.ndarray, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which boxes [N, 4], as (x, y, width, height) and as two corners, are of use as they are, in images [N, 2]."""
    x1, y1, x2, y2 = boxes.T
    height, width = sizes.T
    return (
        np.isfinite(boxes).all(1)
        & (written[:, 2:] > 0).all(1)
        & (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
        & (x1 >= -TOLERANCE) & (y1 >= -TOLERANCE) & (x2 <= width + TOLERANCE) & (y2 <= height + TOLERANCE)
        & (x2 - x1 >= 1) & (y2 - y1 >= 1)
    )  # fmt: skip


def _add_outlines(
    outlines: Sequence[Polygons | None], wanted: np.ndarray, sizes: np.ndarray, rows: np.ndarray, texts: bytearray
) -> np.ndarray:
    """Which of the outlines [N] are of use as they are, or absent; those of the wanted go into `rows` and `texts`."""
    counts = np.fromiter((len(outline) if outline else 0 for outline in outlines), np.int64, len(outlines))
    good = counts == 0
    wanted = wanted & ~good
    single = np.flatnonzero(wanted & (counts == 1)).tolist()
    several = [place for place in np.flatnonzero(wanted & (counts > 1)).tolist() if _is_whole(outlines[place] or ())]
    single = [place for place in single if _is_whole(outlines[place] or ())]
    polygons = [polygon for place in single + several for polygon in outlines[place] or ()]
    if not polygons:
        return good
    whole = np.array(single + several, np.int64)
    owners = np.repeat(whole, counts[whole])
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    sides = np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum()))
    usable = _usable(sides.reshape(-1, 2), lengths // 2, sizes[owners])
    good[whole] = True
    good[owners[~usable]] = False

    kept = good[single]
    of_single = lengths[: len(single)]
    chosen, ends = np.array(single, np.int64)[kept], np.cumsum(8 * of_single[kept])
    rows["parts"][chosen], rows["length"][chosen] = 1, 8 * of_single[kept]
    rows["start"][chosen] = len(texts) + ends - 8 * of_single[kept]
    texts += sides[: of_single.sum()][np.repeat(kept, of_single)].tobytes()
    for place in several:
        if good[place]:
            parts, outline = packed_outline(outlines[place])
            rows["parts"][place], rows["start"][place], rows["length"][place] = parts, len(texts), len(outline)
            texts += outline
    return good


def _is_whole(outline: Sequence[list[float]]) -> bool:
    """Whether all polygons have three points or more, and as many y as x."""
    return all(len(polygon) >= 6 and not len(polygon) % 2 for polygon in outline)


def _usable(points: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which polygons, one behind the other in `points` [P, 2], are inside images of these sizes, and have an area."""
    starts = np.cumsum(counts) - counts
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    inside = (low >= -MARGIN).all(1) & (high <= sizes[:, ::-1] + MARGIN).all(1)
    x, y = (points - np.repeat(points[starts], counts, axis=0)).T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    cross[starts + counts - 1] = 0  # between the last point and the first, which is (0, 0)
    return inside & (np.abs(np.add.reduceat(cross, starts)) / 2 > SURE_AREA)
