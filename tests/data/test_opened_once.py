"""Processes that share a machine open a data set once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from piip.data.opening import opened_once
from piip.data.report import DataError
from piip.data.shared_file import PREFIX
from piip.data.synthetic import make_scenes


@pytest.mark.slow  # three processes import everything
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_the_first_process_of_a_machine_opens_for_all(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", train=6, val=2, size=(64, 64))
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               str(Path(__file__).with_name("opened_once.py")), str(tmp_path / "scenes")]  # fmt: skip
    told = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=told)
    assert done.returncode == 0, done.stderr
    one, other = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda found: -len(found["read"]))
    assert one["read"] == ["train", "test"]
    assert other["read"] == ["test"]  # which is not there, as each says
    assert one["said"] == other["said"]
    assert one["objects"] == other["objects"] != []
    assert one["file"] == other["file"]
    assert one["file"].startswith(PREFIX)
    assert one["listed"] == other["listed"] == 6
    assert one["nothing"] is other["nothing"] is None
    assert not list((tmp_path / "temporary").glob(f"{PREFIX}*"))


def test_a_process_alone_just_opens() -> None:
    assert opened_once(lambda: 3) == 3

    def read() -> int:
        raise DataError("nothing there")

    with pytest.raises(DataError, match="nothing there"):
        opened_once(read)
