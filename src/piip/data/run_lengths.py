"""Masks as COCO run lengths: runs of 0, 1, 0, ... down the columns.

Decoding and scoring are faster-coco-eval's. Encoding is here because predictions are written with the core
installation, which does without that package.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BITS = 5
"""of a number that one character of the compressed text holds; another says whether more follow"""


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
    return {"size": [height, width], "counts": _compressed(run_lengths(mask))}


def _compressed(lengths: np.ndarray) -> str:
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
