"""Two processes train as one: the same weights, and they stop together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import PlainModel, ToyData, toy_metric, toy_settings

from piip.data.synthetic import make_scenes
from piip.training.folder import RunFolder
from piip.training.loop import train
from piip.weights.files import nonfinite_keys

pytestmark = [
    pytest.mark.slow,  # three processes import everything
    pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed"),
]
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d",
            "--rdzv-endpoint=localhost:0", "--local-addr=localhost")  # fmt: skip
"""which finds a free port itself, and keeps it"""


def launch(folder: Path, kind: str, *options: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("toy_training.py")
    command = [*LAUNCHER, *options, str(script), str(folder), "0", kind]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    done = launch(tmp_path / "two", "plain")
    assert done.returncode == 0, done.stderr
    settings = toy_settings(batch_size=4, grad_accumulation=2, epochs=2)
    result = train(PlainModel(), ToyData(12), settings, tmp_path / "one", toy_metric)  # type: ignore[arg-type]
    two, one = (load_file(RunFolder(tmp_path / name).last) for name in ("two", "one"))
    assert not torch.equal(one["head.weight"], PlainModel().head.weight)
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=2e-6)
    lines = RunFolder(tmp_path / "two").results.read_text().splitlines()
    assert len(lines) == 3
    header = lines[0].split(",")
    losses = [float(line.split(",")[header.index("loss")]) for line in lines[1:]]
    assert losses == pytest.approx([row["loss"] for row in result.history], rel=1e-5)


def test_processes_share_one_folder_and_one_writes(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", train=6, val=2, size=(64, 64))
    done = launch(tmp_path, "whole")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "detection" / "whole"
    assert [path.name for path in folder.parent.iterdir()] == ["whole"]
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("main ")) == [
        f"main False {folder}",
        f"main True {folder}",
    ]
    assert done.stdout.count("main ") == 2
    assert len(list((folder / "val").glob("*.jpg"))) == 2
    metrics = json.loads((folder / "val" / "metrics.json").read_text())
    header, row = (line.split(",") for line in RunFolder(folder).results.read_text().splitlines())
    assert float(row[header.index("box_AP")]) == pytest.approx(metrics["box"]["AP"], abs=1e-6)


def test_a_broken_number_in_one_process_is_left_out_in_both(tmp_path: Path) -> None:
    """Image 3 is in one process's batch of each epoch; the step is that of both."""
    done = launch(tmp_path, "nan")
    assert done.returncode == 0, done.stderr
    skipped = json.loads((tmp_path / "skipped.json").read_text())["skipped_steps"]
    assert [step["epoch"] for step in skipped] == [1, 2]
    for step in skipped:
        assert "3" in step["images"]
        assert len(step["images"]) == 8 or len(step["images"]) == 4  # of both processes; the last step is a small one
    assert not nonfinite_keys(load_file(RunFolder(tmp_path).last))


def test_a_restarted_launch_goes_on_with_its_run(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", train=6, val=2, size=(64, 64))
    done = launch(tmp_path, "restarted", "--max-restarts=1")
    assert done.returncode == 0, done.stderr
    assert "ZeroDivisionError" in done.stderr
    folder = tmp_path / "detection" / "restarted"
    assert [path.name for path in folder.parent.iterdir()] == ["restarted"]
    assert f"main True {folder} [1, 2]" in done.stdout
