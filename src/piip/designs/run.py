"""From a budget to proposals."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from piip.config.heads import TASKS
from piip.designs import search
from piip.designs.cost import Cost
from piip.designs.objects import CELLS_ENOUGH, Objects, objects_of
from piip.designs.parts import FINEST_SIZES, PATCHES, Model, Pyramid, models_of, pyramids
from piip.designs.proposal import Proposal, Setting, proposal
from piip.designs.search import Candidate, Price, Tier
from piip.designs.seconds import calibrated, measured_seconds
from piip.profile import info
from piip.weights.names import config_of
from piip.zoo.own import DETECTOR_STRIDES

CLOSE = 0.95
"""of the multiply-adds of the model that is to be replaced, at least"""
TRIES = 4
"""measurements of the first proposal, until it is within the seconds"""
UNITS = {"G": 1.0, "T": 1000.0}


@dataclass(frozen=True)
class Field:
    """What can be chosen from."""

    family: str
    strides: tuple[int, ...]
    largest_finest: int

    @property
    def models(self) -> tuple[Model, ...]:
        """Smallest first."""
        return models_of(self.family)

    def tiers(self, price: Price) -> list[Tier]:
        """With everything priced."""
        candidates = search.priced(pyramids(self.family, self.largest_finest), self.strides, price)
        return search.tiers(candidates, self.models, self.strides, price)


def design(
    budget: float | str | None = None,
    *,
    seconds: float | None = None,
    device: str | None = None,
    like: str | Path | None = None,
    data: str | Path | None = None,
    split: str = "train",
    family: str = "deit",
    head: str | None = None,
    count: int = 3,
    pretrained: bool = True,
) -> list[Proposal]:
    """Propose pyramids of pretrained timm models, best first; see docs/design.md for the rules and their sources.

    Args:
        budget: billions of multiply-adds of the backbone as it runs, or "300G", "1.2T".
        seconds: instead, of one image from the network's input to its predictions on `device`: one small pyramid is
            measured and scaled by counts, then the first proposal is measured.
        device: "cpu", "cuda" or "mps"; None: a GPU if there is one.
        like: instead, a model whose multiply-adds are to be met within 5 %, with no larger models in it.
        data: detection data, whose objects say how fine the finest image must be and need be.
        split: of the data.
        family: "deit" (DeiT and DeiT III), "augreg" or "dinov2".
        head: "mask_rcnn", "dino" or "upernet"; None: as in `like`, else Mask R-CNN.
        count: proposals at most.
        pretrained: the described model begins as timm's weights.

    Returns:
        Proposals with `config`, `counts`, `reasons`, `sizes`, and `save("mine.yaml")`.

    Raises:
        ValueError: not exactly one of `budget`, `seconds` and `like`; one that no pyramid meets; another family.
    """
    if sum(given is not None for given in (budget, seconds, like)) != 1:
        raise ValueError("give one of a budget of multiply-adds (300G), seconds, and a model to be like")
    if count < 1:
        raise ValueError(f"{count} proposals: ask for 1 or more")
    head = head or ("mask_rcnn" if like is None else config_of(like).head.kind)
    if TASKS.get(head) not in ("detection", "segmentation"):
        raise ValueError(f"head {head!r}: use mask_rcnn, dino or upernet; the paper has three classifiers, too few "
                         "for a rule")  # fmt: skip
    models_of(family)  # which knows the families
    objects = None if data is None else objects_of(data, split)
    field = Field(family, DETECTOR_STRIDES.get(head, (4, 8, 16, 32)), _largest(objects, family))
    if like is not None:
        return _like(like, field, objects, head, count, pretrained)
    if seconds is not None:
        return _within_seconds(seconds, device, field, objects, head, count, pretrained)
    assert budget is not None
    limit = gmacs_of(budget)
    found = field.tiers(_gmacs)
    tier, first, held = _best(found, limit, "billion multiply-adds")
    asked = f"a budget of {limit:g} billion multiply-adds"
    setting = Setting(head, pretrained, asked, tier, "billion multiply-adds", objects, held)
    chosen = [first, *search.others(tier.candidates, first, limit, count)]
    return [proposal(one, setting, one is first) for one in chosen]


def gmacs_of(budget: float | str) -> float:
    """Billions of multiply-adds from a number or from words such as "300G" and "1.2T"; ValueError for others."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([GT]?)\s*", str(budget), re.IGNORECASE)
    value = float(found[1]) * UNITS[found[2].upper() or "G"] if found else 0.0
    if not 0 < value < math.inf:
        raise ValueError(f"budget {budget!r}: write billions of multiply-adds, such as 300G or 1.2T")
    return value


def _gmacs(_: Pyramid, cost: Cost) -> float:
    return cost.macs / 1e9


def _largest(objects: Objects | None, family: str) -> int:
    """The largest finest size to look at: beyond it small objects have all that the paper tried."""
    if objects is None:
        return FINEST_SIZES[1]
    step = 2 * PATCHES[family]
    enough = math.ceil(objects.size_for(CELLS_ENOUGH, PATCHES[family]) / step) * step
    return min(FINEST_SIZES[1], max(math.ceil(FINEST_SIZES[0] / step) * step, enough))


def _best(found: Sequence[Tier], limit: float, unit: str) -> tuple[Tier, Candidate, int | None]:
    best = search.best(found, limit)
    if best is None:
        least = min(tier.begins for tier in found)
        raise ValueError(f"no pyramid of these models fits {limit:g} {unit}; the smallest takes {least:.3g}. The nano "
                         "models are smaller: `piip models nano`")  # fmt: skip
    return best


def _like(
    like: str | Path, field: Field, objects: Objects | None, head: str, count: int, pretrained: bool
) -> list[Proposal]:
    """As many multiply-adds as a model has, and no larger a model than its largest."""
    target = info(like)["as_run"]["gmacs"]
    width = max(branch.width for branch in config_of(like).backbone.branches)
    notes: tuple[str, ...] = ()

    def close(field: Field) -> tuple[list[Tier], list[Candidate]]:
        found = [tier for tier in field.tiers(_gmacs) if tier.largest.width <= width] or field.tiers(_gmacs)[:1]
        return found, [one for tier in found for one in tier.candidates if CLOSE * target <= one.price <= target]

    found, candidates = close(field)
    if not candidates and field.largest_finest < FINEST_SIZES[1]:
        found, candidates = close(replace(field, largest_finest=FINEST_SIZES[1]))
        notes = ("the objects need less than this model computes",)
    if not candidates:
        prices = [one.price for tier in found for one in tier.candidates]
        raise ValueError(f"{like} takes {target:g} billion multiply-adds; pyramids of these models take "
                         f"{min(prices):.3g} to {max(prices):.4g}")  # fmt: skip
    largest = max((one.pyramid.models[-1] for one in candidates), key=lambda model: model.width)
    tier = next(tier for tier in found if tier.largest == largest)
    first = max((one for one in candidates if one.pyramid.models[-1] == largest), key=lambda one: one.box_ap)
    setting = Setting(head, pretrained, f"as many multiply-adds as {like} ({target:g} billion)", tier,
                      "billion multiply-adds", objects, notes=notes)  # fmt: skip
    return [proposal(one, setting, one is first) for one in (first, *search.others(candidates, first, target, count))]


def _within_seconds(
    seconds: float, device: str | None, field: Field, objects: Objects | None, head: str, count: int, pretrained: bool
) -> list[Proposal]:
    """Estimate, measure the first proposal, correct the estimate, until that is within the seconds."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"{seconds:g} seconds: give a number, more than 0")
    rates = calibrated(field.family, head, field.strides, device)
    for _ in range(TRIES):
        found = field.tiers(rates.price)
        tier, first, held = _best(found, seconds, "seconds on this machine")
        took, _ = measured_seconds(first.pyramid, head, device)
        if took <= seconds:
            break
        rates = rates.corrected(1.02 * took / first.price)
    notes = (f"measured: {took:.3g} seconds on this machine",)
    if took > seconds:
        notes = (f"{notes[0]}, more than asked for: after {TRIES} tries this is the nearest; is the machine busy?",)
    setting = Setting(head, pretrained, f"{seconds:g} seconds", tier, "seconds", objects, held, notes)
    rest = search.others(tier.candidates, first, seconds, count)
    return [proposal(first, setting, True, took, True), *(proposal(one, setting, False, one.price) for one in rest)]
