"""What the paper's tables say about sizes: box AP of its pyramids against multiply-adds and the finest size.

Source: arXiv 2406.04330, the ten Mask R-CNN pyramids of DeiT branches on COCO, as `piip models` lists them. Two rules
of the paper are kept beside the fit: enlarge the largest image first, and let the largest model be no larger than that
of the baseline one compares with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from piip.profile.published import published_counts
from piip.zoo.detection import DEIT
from piip.zoo.entries import Entry

PAPER = "arXiv 2406.04330"


@dataclass(frozen=True)
class Row:
    """A published pyramid."""

    name: str
    gmacs: float
    """billions of multiply-adds of branches and exchanges, in the paper's convention"""
    finest: int
    """pixels"""
    box_ap: float


@dataclass(frozen=True)
class Rule:
    """Box AP = offset + per_gmacs * log2(gmacs) + per_size * log2(finest), fitted to rows by least squares."""

    offset: float
    per_gmacs: float
    """AP for twice the multiply-adds of branches and exchanges"""
    per_size: float
    """AP for twice the finest size, beyond what its multiply-adds are worth"""

    def box_ap(self, gmacs: float, finest: int) -> float:
        """What the rule expects on COCO with the published recipe: to compare pyramids, not to promise anything."""
        return float(self.offset + self.per_gmacs * np.log2(gmacs) + self.per_size * np.log2(finest))


@dataclass(frozen=True)
class Trial:
    """How well the rule predicts rows that it was not fitted to: each is left out once."""

    rows: int
    error: float
    """root of the mean square, in AP"""
    rank_correlation: float
    """Spearman's"""


def row_of(entry: Entry) -> Row:
    """A row of the zoo that has a published box AP."""
    backbone = entry.published_backbone()
    finest = backbone.branches[0].size
    counts = published_counts(backbone, (finest, finest))
    own = (count.macs for part, count in counts.items() if part not in ("merge", "head"))
    return Row(entry.name, sum(own) / 1e9, finest, entry.published["box_ap"])


@lru_cache
def rows() -> tuple[Row, ...]:
    """Those that the rule is fitted to."""
    return tuple(row_of(entry) for entry in DEIT)


@lru_cache
def rule() -> Rule:
    """The rule that proposals are ranked by."""
    return fitted(rows())


def fitted(given: Sequence[Row]) -> Rule:
    """By least squares."""
    inputs = np.array([[1.0, np.log2(row.gmacs), np.log2(row.finest)] for row in given])
    solved = np.linalg.lstsq(inputs, np.array([row.box_ap for row in given]), rcond=None)[0]
    return Rule(*map(float, solved))


def tried(given: Sequence[Row]) -> Trial:
    """The rule fitted to all rows but one, on that one, for each of them."""
    expected = []
    for index, row in enumerate(given):
        rest = fitted([*given[:index], *given[index + 1 :]])
        expected.append(rest.box_ap(row.gmacs, row.finest))
    known = [row.box_ap for row in given]
    error = float(np.sqrt(np.mean((np.array(expected) - known) ** 2)))
    return Trial(len(given), error, float(np.corrcoef(_ranks(expected), _ranks(known))[0, 1]))


def _ranks(values: Sequence[float]) -> list[float]:
    """From 0; equal values share the mean of their ranks."""
    return [sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]
