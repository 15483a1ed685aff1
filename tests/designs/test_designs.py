"""Proposed pyramids: what they cost is counted, what they are for is measured, and the file is the proposal."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import piip
from piip.cli import app
from piip.config.spelled import spelled_backbone
from piip.data.report import DataError
from piip.designs import Proposal, run, search
from piip.designs.cost import cost_of
from piip.designs.evidence import rows, rule, tried
from piip.designs.objects import Objects, objects_of
from piip.designs.parts import Pyramid, models_of
from piip.profile.measured import measured_counts

MAPS = (4, 8, 16, 32)
DEIT, DINOV2 = models_of("deit"), models_of("dinov2")


@pytest.fixture(scope="module")
def proposed() -> Proposal:
    return piip.design("40G", count=1, pretrained=False)[0]


@pytest.fixture(scope="module")
def tiers() -> list[search.Tier]:
    return run.Field("deit", MAPS, 1792).tiers(run._gmacs)


def objects(part: float) -> Objects:
    return Objects(count=100, image_side=1000.0, small=1000 * part, part=part)


@pytest.mark.parametrize(
    "pyramid",
    [
        Pyramid(DEIT[:3], (800, 608, 320)),  # windows that the edge cuts, and global attention
        Pyramid(DINOV2[:2], (784, 392)),  # patches of 14, windows that fit
    ],
)
def test_the_closed_form_is_what_the_meta_device_counts(pyramid: Pyramid) -> None:
    counted = measured_counts(spelled_backbone(pyramid.words), None, (pyramid.sizes[0], pyramid.sizes[0]))
    cost = cost_of(pyramid)
    assert cost.maps == counted["merge"].macs + counted["maps"].macs
    assert cost.macs == sum(count.macs for count in counted.values())


def test_a_proposal_is_within_its_budget_and_its_file_is_the_same_model(proposed: Proposal, tmp_path: Path) -> None:
    assert 0.8 * 40 < proposed.counts["gmacs"] <= 40
    path = tmp_path / "mine.yaml"
    proposed.save(path)
    model = piip.PIIP(path, device="cpu")
    assert model.config == proposed.config
    facts = piip.info(str(path))
    assert facts["as_run"] == {"params": proposed.counts["params"], "gmacs": proposed.counts["gmacs"]}
    assert facts["whole_model"]["gmacs"] == proposed.counts["whole_model_gmacs"]
    with pytest.raises(ValueError, match=r"mine\.yaml is there already"):
        proposed.save(path)


def test_more_budget_never_gives_a_coarser_image_and_always_fits(tiers: list[search.Tier]) -> None:
    budgets = np.geomspace(11, 6000, 24)
    found = [search.best(tiers, budget) for budget in budgets]
    chosen = [best[1] for best in found if best is not None]
    assert len(chosen) == len(budgets)
    assert all(one.price <= budget for one, budget in zip(chosen, budgets, strict=True))
    assert all(coarse.finest <= fine.finest for coarse, fine in pairwise(chosen))
    assert all(small.box_ap <= large.box_ap for small, large in pairwise(chosen))
    assert chosen[0].finest < 500 < 1700 < chosen[-1].finest


def test_the_largest_model_is_that_of_the_baseline_as_in_the_papers_rows(tiers: list[search.Tier]) -> None:
    for letters, sizes in (("TSB", (1120, 896, 448)), ("TSB", (1568, 1120, 672)), ("SBL", (1120, 672, 448)),
                           ("SBL", (1568, 1120, 672)), ("TSBL", (1344, 896, 672, 448))):  # fmt: skip
        models = tuple(model for model in DEIT if model.letter.upper() in letters)
        best = search.best(tiers, cost_of(Pyramid(models, sizes)).macs / 1e9)
        assert best is not None
        assert best[1].pyramid.letters[-1] == letters[-1]


def test_others_are_within_the_budget_unlike_and_not_better(tiers: list[search.Tier]) -> None:
    best = search.best(tiers, 900)
    assert best is not None
    tier, first, _ = best
    others = search.others(tier.candidates, first, 900, 3)
    assert len(others) == 2
    assert all(one.price <= 900 and one.box_ap <= first.box_ap for one in others)
    assert len({(one.pyramid.letters, one.finest) for one in (first, *others)}) == 3


def test_small_objects_get_a_finer_image_than_large_ones() -> None:
    finest = []
    for part in (0.02, 0.12):
        field = run.Field("deit", MAPS, run._largest(objects(part), "deit"))
        best = search.best(field.tiers(run._gmacs), 300)
        assert best is not None
        finest.append(best[1].finest)
    assert finest[0] > 2 * finest[1]
    assert 8 * 4 / 0.12 <= finest[1] <= 12 * 4 / 0.12 + 32


def test_where_the_budget_is_not_enough_for_small_objects_tiles_are_named() -> None:
    small = objects(0.01)
    assert small.size_for(8, 16) == 3200
    assert small.tile_for(800, 16) == 250  # objects of 10 pixels become 32


def test_like_a_file_is_close_to_it_and_has_no_larger_model(
    proposed: Proposal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposed.save(tmp_path / "mine.yaml")
    taken = proposed.counts["gmacs"]
    monkeypatch.setattr(run, "info", lambda _: {"as_run": {"gmacs": taken}})
    monkeypatch.setattr(run, "proposal", lambda candidate, *_: candidate)
    found: Any = piip.design(like=tmp_path / "mine.yaml")
    assert found
    assert all(0.95 * taken <= one.price <= taken and one.pyramid.models[-1].width <= 384 for one in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "like", ["piip_tsb_1568_896_448_mask_rcnn", "vit_l_1024_mask_rcnn", "piip_sbl_1792_1120_672_dino"]
)
def test_like_a_model_of_the_zoo(like: str) -> None:
    taken = piip.info(like)["as_run"]["gmacs"]
    widest = max(branch.width for branch in piip.zoo.entry(like).backbone().branches)
    for one in piip.design(like=like, pretrained=False):
        assert 0.95 * taken <= one.counts["gmacs"] <= taken
        assert max(branch.width for branch in one.config.backbone.branches) == widest
        assert one.config.head.kind == piip.zoo.entry(like).head.kind


def test_seconds_are_corrected_by_measuring_the_first_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which large pyramids are half as fast as the small one that is measured first."""

    def measured(pyramid: Pyramid, head: str, device: str | None) -> tuple[float, dict[str, float]]:
        cost = cost_of(pyramid)
        slow = 1.0 if pyramid.sizes[0] == 640 else 2.0
        parts = {"branch 0": cost.branches / 3e10, "merge": cost.maps / 6e10, "head": 0.2}
        parts = {part: slow * seconds for part, seconds in parts.items()}
        return sum(parts.values()), parts

    monkeypatch.setattr(run, "measured_seconds", measured)
    monkeypatch.setattr("piip.designs.seconds.measured_seconds", measured)
    monkeypatch.setattr(run, "proposal", lambda candidate, setting, first, seconds, *_: (candidate, seconds))
    found: Any = piip.design(seconds=5)
    (first, took), *others = found
    assert took == pytest.approx(measured(first.pyramid, "", None)[0])
    assert 2.5 < took <= 5
    assert all(seconds <= 5 for _, seconds in others)


def test_the_rule_ranks_the_papers_rows_and_values_both() -> None:
    trial = tried(rows())
    assert trial.rows == 10
    assert trial.rank_correlation > 0.95
    assert trial.error < 0.4
    assert rule().per_size > 1
    assert rule().per_gmacs > 1
    shuffled = [replace(row, box_ap=ap) for row, ap in zip(rows(), reversed([r.box_ap for r in rows()]), strict=True)]
    assert tried(shuffled).rank_correlation < 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of"),
        ({"budget": "300G", "seconds": 2}, "give one of"),
        ({"budget": "many"}, "such as 300G"),
        ({"budget": "1G"}, "the smallest takes 10.4"),
        ({"budget": "300G", "family": "swin"}, "deit, augreg, dinov2"),
        ({"budget": "300G", "family": "swin", "data": "nowhere"}, "deit, augreg, dinov2"),
        ({"budget": 1e400}, "such as 300G"),
        ({"seconds": 1e400}, "inf seconds"),
        ({"budget": "300G", "head": "classifier"}, "mask_rcnn, dino or upernet"),
        ({"seconds": -1.0}, "more than 0"),
    ],
)
def test_what_cannot_be_met_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        piip.design(**given)


def test_units() -> None:
    assert [run.gmacs_of(text) for text in ("300G", "1.2T", " 5 g", 40, 0.5, 1e-5)] == [300, 1200, 5, 40, 0.5, 1e-5]


def test_data_without_sizes_is_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / "1.png")
    with pytest.raises(DataError, match="holds a folder or a table of classified images; only boxes or outlines"):
        objects_of(tmp_path, "train")


def test_a_measurement_says_that_it_takes_minutes(proposed: Proposal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piip.designs.design", lambda *_, **__: [proposed])
    done = CliRunner().invoke(app, ["design", "--seconds", "2"])
    assert "measuring a small pyramid" in done.stderr
    assert "measuring" not in CliRunner().invoke(app, ["design", "--budget", "40G"]).stderr
    picked = CliRunner().invoke(app, ["design", "--budget", "40G", "--pick", "2"])
    assert str(picked.exception) == "--pick 2: what was found is 1 proposal"
