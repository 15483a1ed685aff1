from collections.abc import Iterator

import pytest
import torch

from piip.training import report


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in the same order whatever the machine: these tests compare bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take half a second a run and have tests of their own."""
    monkeypatch.setattr(report, "plot_curves", lambda results, picture, best: picture.touch())
