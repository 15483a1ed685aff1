"""An error that nobody foresaw is one line, a log file and an exit code of its own."""

from pathlib import Path

import pytest

from piip import cli
from piip.cli import unforeseen
from piip.training import failures


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("somewhere deep"), "unforeseen KeyError: 'somewhere deep'"),
        (MemoryError(), "out of memory"),
        (RecursionError("x"), "the input is nested too deeply"),
    ],
)
def test_one_line_a_log_and_a_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    line: str,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == unforeseen.EXIT_CODE
    (log,) = tmp_path.iterdir()
    printed = capsys.readouterr().err
    assert printed.startswith(f"Error: {line}")
    assert printed.endswith(f"Details are in {log}\n")
    assert printed.count("\n") == 1
    assert type(error).__name__ in log.read_text()
    assert "in fail" in log.read_text()


def test_a_log_that_cannot_be_written_hides_no_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert unforeseen.explained(KeyError("k")) == "unforeseen KeyError: 'k' (no log: No such file or directory)"


def test_exit_codes_differ() -> None:
    assert len({0, 1, 2, failures.EXIT_CODE, unforeseen.EXIT_CODE}) == 5
    assert f"{unforeseen.EXIT_CODE} anything else" in str(cli.__doc__)
