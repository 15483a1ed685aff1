"""After a restart by torchrun a run is gone on with, not begun again beside itself."""

from pathlib import Path

import pytest

from piip.training import restart
from piip.training.folder import new_run_folder
from piip.training.restart import begun_before, mark_as_begun


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "_taken", set())
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


def begin(root: Path) -> Path:
    place = (root, "detection", "try")
    return begun_before(*place) or mark_as_begun(new_run_folder(*place))


def restarted(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(restart, "_taken", set())
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))


def test_without_torchrun_every_run_is_new(tmp_path: Path) -> None:
    assert [begin(tmp_path).name for _ in range(2)] == ["try", "try-2"]
    assert list((tmp_path / "detection" / "try").iterdir()) == []


def test_restarts_find_their_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path)  # another's
    restarted(monkeypatch, 0)
    assert [begin(tmp_path).name for _ in range(2)] == ["try-2", "try-3"]
    restarted(monkeypatch, 1)
    assert [begin(tmp_path).name for _ in range(3)] == ["try-2", "try-3", "try-4"]
    restarted(monkeypatch, 2)
    assert begin(tmp_path).name == "try-2"


def test_another_launch_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restarted(monkeypatch, 0)
    begin(tmp_path)
    restarted(monkeypatch, 1)
    monkeypatch.setattr(restart, "launch", lambda: "none elsewhere 1 1")
    assert begin(tmp_path).name == "try-2"
