"""Masks as COCO run lengths, written and read: runs of 0, 1, 0, ... down the columns.

Pixels and scores of them are faster-coco-eval's. Encoding is here because predictions are written with the core
installation, which does without that package; checking is here because that package's C code trusts its input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from piip.structures import Size

BITS = 5
"""of a number that one character of the compressed text holds; another says whether more follow"""
LARGEST_SIDE = 1 << 20
"""of an image that a part of a mask may be in, in pixels"""


class RunLengthError(ValueError):
    """Run lengths that cannot be used; the message is the kind of fault."""


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of a mask [H, W], the first of 0 (and 0 long where the mask begins with 1).

    >>> run_lengths(np.array([[0, 1], [1, 1]])).tolist()
    [1, 3]
    """
    pixels = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate(([0, 0] if pixels[0] else [0], changes, [pixels.size]))
    return np.diff(starts)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask [H, W] as compressed run lengths: {"size": [H, W], "counts": text}, as COCO results have them."""
    height, width = mask.shape
    return {"size": [height, width], "counts": text_of_runs(run_lengths(mask))}


def encode_part(part: np.ndarray, left: int, top: int, size: Size) -> tuple[dict[str, Any], tuple[float, ...]]:
    """A mask that is `part` [h, w] with its corner at (left, top), nothing around: COCO's run lengths, and its box.

    What lies outside of the image is cut off. RunLengthError where nothing is left, and for an image without pixels.

    >>> encode_part(np.ones((1, 2), bool), 1, 0, (2, 4))[1]
    (1.0, 0.0, 3.0, 1.0)
    """
    height, width = size
    if max(abs(left), abs(top), height, width) > LARGEST_SIDE:
        raise RunLengthError("mask outside of any image")
    columns, rows = np.nonzero(np.asarray(part, dtype=bool).T)  # in the order of the columns
    columns, rows = columns + left, rows + top
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows = columns[inside], rows[inside]
    if not len(columns):
        raise RunLengthError("mask without a pixel")
    places = columns * height + rows
    breaks = np.flatnonzero(np.diff(places) != 1)
    starts, ends = places[np.r_[0, breaks + 1]], places[np.r_[breaks, len(places) - 1]] + 1
    lengths = np.diff(np.r_[0, np.stack([starts, ends], axis=1).ravel(), height * width])
    box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    return {"size": [height, width], "counts": text_of_runs(lengths[:-1] if not lengths[-1] else lengths)}, box


def text_of_runs(lengths: np.ndarray) -> str:
    """COCO's text: each length from the fourth on as its difference to the one two before, in groups of 5 bits,
    lowest first, each in a character from "0" on."""  # fmt: skip
    rest = lengths.copy()
    rest[3:] -= lengths[1:-2]
    groups, follows = [], [np.ones(len(rest), dtype=bool)]
    while follows[-1].any():
        group = rest & (1 << BITS) - 1
        rest = rest >> BITS
        # done when only copies of the group's top bit, its sign, are left
        more = follows[-1] & (rest != np.where(group & 1 << BITS - 1, -1, 0))
        groups.append(group + (more << BITS) + ord("0"))
        follows.append(more)
    characters = np.stack(groups, axis=1)[np.stack(follows[:-1], axis=1)]
    return characters.astype(np.uint8).tobytes().decode("ascii")


def checked_runs(value: dict[str, Any], size: Size) -> dict[str, Any]:
    """Run lengths that COCO's C code can be trusted with, for an image of `size`; RunLengthError for others."""
    given = value.get("size")
    if not isinstance(given, list) or [type(side) for side in given] != [int, int]:
        raise RunLengthError("run lengths without a size")
    if tuple(given) != tuple(size):
        raise RunLengthError("run lengths for another image size")
    runs = lengths_of(value)
    if any(run < 0 for run in runs):
        raise RunLengthError("run lengths with a negative run")
    if sum(runs) != size[0] * size[1]:
        raise RunLengthError("run lengths that do not add up to the image")
    if not any(runs[1::2]):
        raise RunLengthError("run lengths without a pixel")
    return {"size": list(given), "counts": value["counts"]}


def lengths_of(value: dict[str, Any]) -> list[int]:
    """Lengths of the runs of 0s and 1s in turn, down the columns."""
    counts = value.get("counts")
    if isinstance(counts, str):
        return _decompressed(counts)
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return counts
    raise RunLengthError("run lengths that are neither integers nor text")


def _decompressed(text: str) -> list[int]:
    """COCO's text form of run lengths: 5 bits per character from "0" on, a sixth that says more follow, signed,
    and from the fourth run on relative to the run before last."""  # fmt: skip
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - ord("0")
        if not 0 <= code < 64 or shift > 35:
            raise RunLengthError("run lengths in damaged text")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise RunLengthError("run lengths in damaged text")
    return runs
