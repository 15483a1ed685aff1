"""A run that goes on with another number of processes sees the images that it would have seen."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from toy_training import toy_settings

from piip.data.batches import EpochSampler, is_spare
from piip.training.position import Position
from piip.training.regrouped import at_now, check_same_epoch, check_same_step

SEED = 5
SOURCE = Path("last.ckpt")


class Dealt(NamedTuple):
    processes: int
    size: int
    accumulated: int

    def sampler(self, images: int, at: Position, rank: int, groups: list[int] | None) -> EpochSampler:
        together = at.together or self.size * self.processes
        world = (rank, self.processes)
        return EpochSampler(images, self.size, SEED, at.epoch, at.batch, *world, groups=groups, together=together)

    def batches(self, images: int) -> int:
        return EpochSampler(images, self.size, SEED, 0, world=self.processes).batches

    def state(self, images: int) -> dict[str, Any]:
        settings = {"batch_size": self.size, "grad_accumulation": self.accumulated}
        return {"settings": settings, "processes": self.processes, "batches": self.batches(images)}


TWO, ONE, OTHER_TWO = Dealt(2, 4, 1), Dealt(1, 4, 2), Dealt(2, 2, 2)


def trained_on(dealt: Dealt, images: int, at: Position, steps: int, groups: list[int] | None) -> list[int]:
    """The images of the next optimizer steps of an epoch, after which `at` is moved."""
    end = min(at.batch + steps * dealt.accumulated, dealt.batches(images))
    found = []
    for rank in range(dealt.processes):
        keys = list(dealt.sampler(images, at, rank, groups))
        for number in range(at.batch, end):
            if not is_spare(images, dealt.size, number, rank, dealt.processes):
                found += [index for _, index in keys[number - at.batch]]
    at.batch = end
    return found


@pytest.mark.parametrize("images", [8, 9, 21, 24, 25, 30])
@pytest.mark.parametrize("grouped", [False, True])
def test_two_one_two_processes_share_an_epoch_without_a_double(images: int, grouped: bool) -> None:
    groups = [index % 3 == 0 for index in range(images)] if grouped else None
    at = Position(epoch=3, together=TWO.size * TWO.processes)
    seen = trained_on(TWO, images, at, 1, groups)
    assert sorted(seen) == sorted(trained_on(ONE, images, Position(epoch=3, together=8), 1, groups))
    before = TWO
    for now, steps in ((ONE, 1), (OTHER_TWO, 100)):
        settings = toy_settings(batch_size=now.size, grad_accumulation=now.accumulated)
        check_same_step(before.state(images), settings, now.processes, SOURCE)
        check_same_epoch(before.state(images), now.batches(images), settings, now.processes, SOURCE)
        at = at_now(before.state(images), at, now.batches(images), settings)
        seen += trained_on(now, images, at, steps, groups)
        before = now
    assert sorted(seen) == list(range(images))


def test_losses_so_far_count_as_before() -> None:
    at = Position(batch=2, sums={"loss": 5.0}, skipped_batches=1)
    moved = at_now(TWO.state(24), at, ONE.batches(24), toy_settings(batch_size=4, grad_accumulation=2))
    assert (moved.batch, moved.sums, moved.skipped_batches) == (4, {"loss": 10.0}, 2)
    back = at_now(ONE.state(24), moved, TWO.batches(24), toy_settings(batch_size=4, grad_accumulation=1))
    assert (back.batch, back.sums, back.skipped_batches) == (2, {"loss": 5.0}, 1)


def test_the_end_of_an_epoch_stays_the_end() -> None:
    at = at_now(TWO.state(21), Position(batch=3), ONE.batches(21), toy_settings(batch_size=4, grad_accumulation=2))
    assert at.batch == ONE.batches(21) == 6


def test_a_run_of_an_earlier_version_goes_on_as_it_was() -> None:
    state = TWO.state(24)
    del state["processes"]
    at = at_now(state, Position(batch=2), TWO.batches(24), toy_settings(batch_size=4, grad_accumulation=1))
    assert (at.batch, at.together) == (2, 4)


def test_another_number_of_images_per_step_is_refused_with_a_remedy() -> None:
    told = r"2 processes x 4 images = 8, .* 1 process x 4 images = 4: .* 2, or --processes 2 as before"
    with pytest.raises(ValueError, match=told):
        check_same_step(TWO.state(24), toy_settings(batch_size=4, grad_accumulation=1), 1, SOURCE)
    with pytest.raises(ValueError, match="a number of processes that divides 8"):
        check_same_step(TWO.state(24), toy_settings(batch_size=4, grad_accumulation=1), 3, SOURCE)


def test_other_data_is_refused() -> None:
    settings = toy_settings(batch_size=4, grad_accumulation=1)
    with pytest.raises(ValueError, match="the data or the number of processes changed"):
        check_same_epoch(TWO.state(24), TWO.batches(23) + 1, settings, 2, SOURCE)
