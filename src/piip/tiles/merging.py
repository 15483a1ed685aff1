"""Objects that the borders of tiles cut, or that several tiles see, become one each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from piip.data.object_masks import Crop, Masks, crop_of_runs, runs_of_crop
from piip.structures import Prediction
from piip.tiles.found import Found
from piip.tiles.same import Pair, pairs

ALIKE = 0.25
"""least ratio of the scores of two parts of one object: else any of hundreds of hardly found boxes could stretch it"""
REMNANT = 0.8
"""share of a cut object's box inside that of another of its class from which on it is a part of it"""


def merged(found: Found) -> tuple[Prediction, Masks | None]:
    """Each object once, the best first, and the masks.

    An object that a tile shows whole is taken as the best such tile shows it, and what other tiles show of it is left
    out. Of an object that no tile shows whole, the parts are joined: each is seen to go on in the neighbouring tile, by
    what both tiles see of it, so that the parts of a long object follow one another; the best part gives the score.
    """
    same = pairs(found)
    cut = np.asarray(found.cut.any(axis=1))
    order = np.argsort(-found.scores, kind="stable").tolist()
    partners: dict[int, set[int]] = defaultdict(set)
    for pair in same:
        partners[pair.first].add(pair.second)
        partners[pair.second].add(pair.first)
    whole: set[int] = set()
    for i in order:
        if not cut[i] and whole.isdisjoint(partners[i]):
            whole.add(i)
    # A part whose other part is a whole object shows nothing that the whole does not.
    parts = [i for i in order if cut[i] and cut[list(partners[i])].all()]
    groups = _groups(parts, same, found)
    joined = _joined(found, [[i] for i in sorted(whole)] + groups)
    kept = _without_remnants(joined, np.array([False] * len(whole) + [len(group) == 1 for group in groups], dtype=bool))
    return joined.as_prediction(kept[np.argsort(-joined.scores[kept], kind="stable")])


def _groups(parts: Sequence[int], same: Sequence[Pair], found: Found) -> list[list[int]]:
    """The parts of each object, in the order of `parts`."""
    chosen = set(parts)
    leader = {i: i for i in parts}

    def first_of(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    among = [pair for pair in same if pair.first in chosen and pair.second in chosen and _alike(found, pair)]
    for pair in _mutually_best(among, found):
        leader[first_of(pair.second)] = first_of(pair.first)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in parts:
        groups[first_of(i)].append(i)
    return list(groups.values())


def _alike(found: Found, pair: Pair) -> bool:
    low, high = sorted((found.scores[pair.first], found.scores[pair.second]))
    return bool(low >= ALIKE * high)


def _mutually_best(same: Sequence[Pair], found: Found) -> list[Pair]:
    """Of the pairs of any two tiles those in which each is the other's best, so that neighbours are not confused."""
    best: dict[tuple[int, int], Pair] = {}
    for pair in same:
        for member, other in ((pair.first, pair.second), (pair.second, pair.first)):
            key = (member, int(found.tile[other]))
            if key not in best or pair.iou > best[key].iou:
                best[key] = pair
    return [
        pair
        for pair in same
        if best[pair.first, int(found.tile[pair.second])] is pair is best[pair.second, int(found.tile[pair.first])]
    ]


def _joined(found: Found, groups: Sequence[Sequence[int]]) -> Found:
    """One object for each group: the box around all of its boxes, the union of its masks, its best score."""
    lead = np.array([group[0] for group in groups], dtype=np.int64)
    boxes = np.zeros((len(groups), 4))
    for row, group in enumerate(groups):
        own = found.boxes[list(group)]
        boxes[row] = (*own[:, :2].min(axis=0), *own[:, 2:].max(axis=0))
    scores = np.array([found.scores[list(group)].max() for group in groups])
    masks = None
    if found.masks is not None:
        masks = Masks(found.size, tuple(_union(found.masks, group) for group in groups))
    return Found(boxes, scores, found.labels[lead], found.tiles[lead], found.tile[lead], found.size, masks)


def _union(masks: Masks, group: Sequence[int]) -> np.ndarray:
    """Run lengths of several masks together."""
    if len(group) == 1:
        return masks.runs[group[0]]
    crops = [crop for crop in (crop_of_runs(masks.runs[i], masks.size) for i in group) if crop.pixels.size]
    if not crops:
        return masks.runs[group[0]]
    top, left = min(crop.top for crop in crops), min(crop.left for crop in crops)
    bottom = max(crop.top + crop.pixels.shape[0] for crop in crops)
    right = max(crop.left + crop.pixels.shape[1] for crop in crops)
    pixels = np.zeros((bottom - top, right - left), dtype=bool)
    for crop in crops:
        height, width = crop.pixels.shape
        pixels[crop.top - top : crop.top - top + height, crop.left - left : crop.left - left + width] |= crop.pixels
    return runs_of_crop(Crop(pixels, top, left), masks.size)


def _without_remnants(joined: Found, alone: np.ndarray) -> np.ndarray:
    """Numbers of all but the cut parts that found no other part and lie within a larger object of their class."""
    boxes, kept = joined.boxes, np.ones(len(joined), dtype=bool)
    areas = np.prod(np.maximum(0, boxes[:, 2:] - boxes[:, :2]), axis=1)
    for i in np.flatnonzero(alone):
        start, end = np.maximum(boxes[i, :2], boxes[:, :2]), np.minimum(boxes[i, 2:], boxes[:, 2:])
        shared = np.prod(np.maximum(0, end - start), axis=1)
        around = (joined.labels == joined.labels[i]) & (areas > areas[i]) & (shared >= REMNANT * areas[i])
        kept[i] = not around.any()
    return np.flatnonzero(kept)
