"""A proposed pyramid: its description, what it costs, and why it was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piip import config
from piip.designs.evidence import PAPER, rows, rule, tried
from piip.designs.objects import CELLS_ENOUGH, CELLS_NEEDED, Objects
from piip.designs.parts import FINEST_SIZES
from piip.designs.search import BASELINE_SIZE, Candidate, Tier
from piip.designs.written import model_of_pyramid, text_of
from piip.files import atomic_write, refuse_taken
from piip.profile import model_info


@dataclass(frozen=True)
class Proposal:
    """A pyramid that can be trained."""

    config: config.Model
    counts: dict[str, float]
    """`params` and `gmacs` (billions of multiply-adds) of the backbone as it runs, counted on the meta device at the
    finest branch's size; `published_gmacs` in the paper's convention; `whole_model_gmacs` with the head"""
    box_ap: float
    """what the rule expects on COCO with the published recipe: to compare proposals, not to promise anything"""
    seconds: float | None
    """of one image, where seconds were asked for"""
    measured: bool
    """whether `seconds` were measured or estimated from what was"""
    reasons: tuple[str, ...]
    text: str
    """the file that describes it"""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pixels, finest first."""
        return tuple(branch.size for branch in self.config.backbone.branches)

    def save(self, path: str | Path) -> None:
        """Write the file that every verb takes; ValueError where something is there already, or for another ending."""
        path = Path(path)
        if path.suffix.lower() not in (".yaml", ".yml"):
            raise ValueError(f"{path}: a model is described in a .yaml file")
        refuse_taken([path], "choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(self.text, encoding="utf-8")

    def as_dict(self) -> dict[str, Any]:
        """As `piip design --json` prints it."""
        return {
            "name": self.config.name,
            "branches": [
                {"model": branch.model, "size": branch.size, "groups": len(branch.groups), "window": branch.windows[0]}
                for branch in self.config.backbone.branches
            ],
            "counts": self.counts,
            "box_ap_by_rule": round(self.box_ap, 2),
            "seconds": self.seconds,
            "measured": self.measured,
            "reasons": list(self.reasons),
            "yaml": self.text,
        }


@dataclass(frozen=True)
class Setting:
    """What all proposals of one call have in common."""

    head: str
    pretrained: bool
    asked: str
    """the budget in words"""
    tier: Tier
    price_unit: str
    objects: Objects | None
    held_at: int | None = None
    """finest size that the first proposal was held at, see `search.best`"""
    notes: tuple[str, ...] = ()


def proposal(
    candidate: Candidate, setting: Setting, first: bool, seconds: float | None = None, measured: bool = False
) -> Proposal:
    """With exact counts."""
    described = model_of_pyramid(candidate.pyramid, setting.head, setting.pretrained)
    facts = model_info(model_of_pyramid(candidate.pyramid, setting.head, False))  # counting needs no weights
    counts = {
        "params": facts["as_run"]["params"],
        "gmacs": facts["as_run"]["gmacs"],
        "published_gmacs": facts["published_convention"]["gmacs"],
        "whole_model_gmacs": facts["whole_model"]["gmacs"],
    }
    reasons = (*_reasons(candidate, setting, described, first), *(setting.notes if first else ()))
    what = f"proposed by `piip design` for {setting.asked}: {counts['gmacs']:.1f} billion multiply-adds as it runs"
    text = text_of(candidate.pyramid, setting.head, setting.pretrained, (what, *reasons))
    return Proposal(described, counts, candidate.box_ap, seconds, measured, reasons, text)


def _reasons(candidate: Candidate, setting: Setting, described: config.Model, first: bool) -> list[str]:
    used, trial = rule(), tried(rows())
    reasons = [
        f"resolution before size ({PAPER}, ablations): in its {trial.rows} DeiT pyramids twice the multiply-adds are "
        f"worth {used.per_gmacs:.1f} box AP, and twice the finest size at equal multiply-adds {used.per_size:.1f}; "
        f"each row, left out, is met within {trial.error:.1f} AP, ranks correlate by {trial.rank_correlation:.2f}",
        f"the largest model no larger than the baseline's (same): a ViT-{setting.tier.largest.letter.upper()}, which "
        f"alone at {BASELINE_SIZE} pixels would cost {setting.tier.baseline:.3g} {setting.price_unit}",
        _exchanges(described),
    ]
    if setting.held_at is not None and first:
        reasons.append(f"held at {setting.held_at} pixels, where a larger budget brings in the next larger model: "
                       "more budget never gives a coarser image")  # fmt: skip
    known = [row.gmacs for row in rows()], [row.finest for row in rows()]
    gmacs = candidate.cost.branches / 1e9
    if not (min(known[0]) <= gmacs <= max(known[0]) and min(known[1]) <= candidate.finest <= max(known[1])):
        reasons.append(f"an extrapolation: the tables have {min(known[0]):.0f} to {max(known[0]):.0f} billion "
                       f"multiply-adds and finest sizes of {min(known[1])} to {max(known[1])}")  # fmt: skip
    if setting.objects is not None:
        reasons.append(_about_objects(setting.objects, candidate))
    return reasons


def _exchanges(described: config.Model) -> str:
    branches = described.backbone.branches
    blocks = ", ".join(str(branch.depth // len(branch.groups)) for branch in branches)
    attention = ", ".join("global" if branch.windows[0] is None else f"windows of {branch.windows[0]}"
                          for branch in branches)  # fmt: skip
    return f"{described.backbone.groups} exchanges, after {blocks} blocks of each branch; attention: {attention}"


def _about_objects(objects: Objects, candidate: Candidate) -> str:
    patch, finest = candidate.pyramid.models[0].patch, candidate.finest
    needed, enough = objects.size_for(CELLS_NEEDED, patch), objects.size_for(CELLS_ENOUGH, patch)
    cells = finest * objects.part * 4 / patch
    found = (
        f"of {objects.count} objects a quarter are smaller than {objects.small:.0f} pixels (images: "
        f"{objects.image_side:.0f}); at {finest} that is {cells:.1f} cells of the finest map"
    )
    if finest < needed:
        reach = "no published size is" if needed > FINEST_SIZES[1] else "this budget is not"
        return (
            f"{found}, and {CELLS_NEEDED} are needed ({needed} pixels): {reach} enough; in tiles of "
            f"{objects.tile_for(finest, patch)} pixels it would be (docs/tiles.md, docs/large_images.md)"
        )
    return (
        f"{found}: {CELLS_NEEDED} are needed ({needed} pixels), more than {CELLS_ENOUGH} ({enough}) are not looked for"
    )
