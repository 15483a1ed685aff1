"""Processes share an evaluation: each image once, and numbers and files as one process makes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tasks import shared_evaluation

pytestmark = [
    pytest.mark.slow,  # processes that import everything
    pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed"),
]


def test_two_processes_find_what_one_finds_to_the_last_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared_evaluation.fill(tmp_path)
    script = Path(shared_evaluation.__file__)
    paths = os.pathsep.join([str(script.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path)], text=True, env=environment, **pipes)
        for rank in range(2)
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shared_evaluation.evaluate(tmp_path, "one")
    torch.set_num_threads(threads)
    alone = capsys.readouterr().out.splitlines()
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [out.splitlines() for out, _ in said] == [[*alone, "stopped"]] * 2  # the metrics are known to all of them
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file()}
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    assert not list((tmp_path / "stopped").rglob("*.json"))
