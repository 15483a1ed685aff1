"""The best pyramid for a budget, such that a larger budget never gives a coarser image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from piip.designs.cost import Cost, cost_of
from piip.designs.evidence import rule
from piip.designs.parts import Model, Pyramid

BASELINE_SIZE = 1024
"""pixels of the paper's single-branch baselines"""
EQUAL = 0.1
"""box AP, a third of what the rule misses rows by: with less between them the finer image is taken"""
UNLIKE = 1.12
"""ratio of finest sizes from which on two proposals of the same models are worth telling apart"""

Price = Callable[[Pyramid, Cost], float]
"""what a pyramid costs, in the unit of the budget"""


@dataclass(frozen=True)
class Candidate:
    """A pyramid with what it costs and what the rule expects of it."""

    pyramid: Pyramid
    cost: Cost
    price: float
    box_ap: float

    @property
    def finest(self) -> int:
        """Pixels."""
        return self.pyramid.sizes[0]


@dataclass(frozen=True)
class Tier:
    """Pyramids with the same largest model, which is that of the baseline with about their price."""

    largest: Model
    baseline: float
    """price of this model alone at 1024 pixels"""
    begins: float
    """budget from which on this tier is the right one"""
    candidates: tuple[Candidate, ...]


def priced(pyramids: Iterable[Pyramid], strides: tuple[int, ...], price: Price) -> list[Candidate]:
    """All of them as candidates."""
    found, expected = [], rule().box_ap
    for pyramid in pyramids:
        cost = cost_of(pyramid, strides)
        found.append(Candidate(pyramid, cost, price(pyramid, cost), expected(cost.branches / 1e9, pyramid.sizes[0])))
    return found


def tiers(
    candidates: Sequence[Candidate], models: Sequence[Model], strides: tuple[int, ...], price: Price
) -> list[Tier]:
    """By the largest model, smallest first.

    A budget belongs to the model whose price alone at 1024 pixels is nearest to it in ratio: so do the paper's rows,
    TSB with the ViT-B baseline, SBL and TSBL with that of ViT-L.
    """
    found: list[Tier] = []
    previous = 0.0
    for model in models:
        alone = Pyramid((model,), (BASELINE_SIZE // (2 * model.patch) * 2 * model.patch,))
        baseline = price(alone, cost_of(alone, strides))
        own = tuple(candidate for candidate in candidates if candidate.pyramid.models[-1] == model)
        if own:
            begins = math.sqrt(previous * baseline) if found else 0.0
            cheapest = min(candidate.price for candidate in own)
            found.append(Tier(model, baseline, max(begins, cheapest), own))
        previous = baseline
    return found


def best(found: Sequence[Tier], budget: float) -> tuple[Tier, Candidate, int | None] | None:
    """The tier of a budget, its best candidate, and the finest size it was held at, if it was; None: nothing fits.

    Within a tier a budget never gives a coarser image than a smaller one did, and none a finer one than the next tier
    begins with.
    """
    cap: int | None = None
    for tier in reversed(found):
        if tier.begins <= budget:
            chosen = _best_of(tier, budget, cap)
            return tier, chosen, cap if cap is not None and chosen.finest == cap else None
        cap = _best_of(tier, tier.begins, cap).finest
    return None


def _best_of(tier: Tier, budget: float, cap: int | None) -> Candidate:
    within = [candidate for candidate in tier.candidates if cap is None or candidate.finest <= cap]
    within = within or [min(tier.candidates, key=lambda candidate: candidate.finest)]
    within.sort(key=lambda candidate: (candidate.price, -candidate.box_ap))
    first = [candidate for candidate in within if candidate.price <= tier.begins] or within[:1]
    top = max(candidate.box_ap for candidate in first)
    equal = [candidate for candidate in first if candidate.box_ap >= top - EQUAL]
    chosen = max(equal, key=lambda candidate: (candidate.finest, candidate.box_ap))
    for candidate in within[len(first) :]:
        if candidate.price > budget:
            break
        if candidate.box_ap > chosen.box_ap and candidate.finest >= chosen.finest:
            chosen = candidate
    return chosen


def others(candidates: Iterable[Candidate], first: Candidate, budget: float, count: int) -> list[Candidate]:
    """The best of what is unlike the first proposal: other models, or other sizes, and not expected to be better."""
    chosen = [first]
    affordable = [one for one in candidates if one.price <= budget and one.box_ap <= first.box_ap]
    for candidate in sorted(affordable, key=lambda one: -one.box_ap):
        if len(chosen) == count:
            break
        if all(_unlike(candidate, other) for other in chosen):
            chosen.append(candidate)
    return chosen[1:]


def _unlike(one: Candidate, other: Candidate) -> bool:
    ratio = one.finest / other.finest
    return one.pyramid.models != other.pyramid.models or not 1 / UNLIKE < ratio < UNLIKE
