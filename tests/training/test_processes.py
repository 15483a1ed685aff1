"""Two processes train as one: the same weights, and they stop together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import PARTS, PlainModel, ToyData, toy_config, toy_metric, toy_settings, train_parts

from piip.data.synthetic import make_scenes
from piip.model import PIIPModel
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


def losses_of(folder: RunFolder) -> list[float]:
    header, *rows = (line.split(",") for line in folder.results.read_text().splitlines())
    return [float(row[header.index("loss")]) for row in rows]


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    done = launch(tmp_path / "two", "plain")
    assert done.returncode == 0, done.stderr
    settings = toy_settings(batch_size=4, grad_accumulation=2, epochs=2)
    result = train(PlainModel(), ToyData(12), settings, tmp_path / "one", toy_metric)  # type: ignore[arg-type]
    two, one = (load_file(RunFolder(tmp_path / name).last) for name in ("two", "one"))
    assert not torch.equal(one["head.weight"], PlainModel().head.weight)
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=2e-6)
    losses = losses_of(RunFolder(tmp_path / "two"))
    assert len(losses) == 2
    assert losses == pytest.approx([row["loss"] for row in result.history], rel=1e-5)


@pytest.mark.parametrize("kind", PARTS)
def test_what_trains_a_part_of_the_model_is_the_same_in_two_processes(tmp_path: Path, kind: str) -> None:
    """Its losses are those of one with twice the batch, what is frozen stays, and it is resumed to the same bits."""
    done = launch(tmp_path, kind)
    assert done.returncode == 0, done.stderr
    train_parts(kind, tmp_path / "one", 4)
    whole, resumed, one = (RunFolder(tmp_path / name) for name in ("whole", "resumed", "one"))
    mine, other, again = (load_file(folder.last) for folder in (whole, one, resumed))
    assert all(torch.equal(value, again[key]) for key, value in mine.items())
    torch.manual_seed(0)
    began = PIIPModel(toy_config(drop_path=0.0)).state_dict()
    assert mine.keys() == other.keys() == began.keys()
    kept = [key for key in began if torch.equal(mine[key], began[key])]
    assert any(key.startswith("backbone.branches.0.") for key in kept)
    assert all(torch.equal(other[key], began[key]) for key in kept)
    losses, losses_of_one = (losses_of(folder) for folder in (whole, one))
    assert losses == pytest.approx(losses_of_one, rel=1e-3)


@pytest.mark.parametrize("kind", ["whole", "sharded"])
def test_processes_share_one_folder_and_one_writes(tmp_path: Path, kind: str) -> None:
    """One that evaluates on shards, too: what it finds with its best weights is what it found after the epoch."""
    make_scenes(tmp_path / "scenes", train=6, val=2, size=(64, 64))
    done = launch(tmp_path, kind)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "detection" / kind
    assert [path.name for path in folder.parent.iterdir()] == [kind]
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
