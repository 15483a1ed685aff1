"""Many files are read in turn while that is quick, else in threads; what comes out is the same."""

from __future__ import annotations

import threading
import time

import pytest

from piip.data import many_files
from piip.data.many_files import of_each


@pytest.fixture(autouse=True)
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_files, "LOOKED_AT", 4)
    monkeypatch.setattr(many_files, "TOGETHER", 2)


def slowly(number: int) -> tuple[int, int]:
    time.sleep(0.002)
    return number, threading.get_ident()


def quickly(number: int) -> tuple[int, int]:
    return number, threading.get_ident()


@pytest.mark.parametrize("count", [0, 1, 4, 5, 41])
def test_slow_files_are_read_in_threads_and_in_order(count: int) -> None:
    found = of_each(slowly, range(count))
    assert [number for number, _ in found] == list(range(count))
    here = threading.get_ident()
    assert all(thread == here for _, thread in found[:4])
    assert all(thread != here for _, thread in found[4:])


def test_files_of_a_quick_disk_are_read_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_files, "WAITS", 60.0)
    assert of_each(quickly, range(9)) == [(number, threading.get_ident()) for number in range(9)]


@pytest.mark.parametrize("counted", [True, False])
def test_systems_that_count_no_waits_go_by_the_time(counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not counted:
        monkeypatch.setattr(many_files, "COUNTED", False)
    assert len({thread for _, thread in of_each(slowly, range(40))}) > 1


@pytest.mark.skipif(not many_files.COUNTED, reason="waits are not counted here")
def test_waiting_for_a_processor_is_no_reason_for_threads() -> None:
    """Of a machine on which many programs run: the time passes, but nothing was asked of a disk."""
    before = many_files._Clocks(0.0, 0.0, 5)
    assert not many_files._Clocks(9.0, 0.1, 6).waited_since(before, 4)
    assert many_files._Clocks(9.0, 0.1, 9).waited_since(before, 4)
    assert not many_files._Clocks(0.001, 0.001, 9).waited_since(before, 4)


@pytest.mark.parametrize("number", [1, 20])
def test_what_is_raised_is_raised(number: int) -> None:
    def fails(at: int) -> tuple[int, int]:
        if at == number:
            raise ValueError("broken")
        return slowly(at)

    with pytest.raises(ValueError, match="broken"):
        of_each(fails, range(30))
