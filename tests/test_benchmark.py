"""The benchmark's figures on tiny and nano models."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from tests import tiny
from typer.testing import CliRunner

from piip.benchmark import benchmark, machine, run, stopwatch
from piip.benchmark.machine import peak_memory
from piip.cli import app
from piip.model import PIIPModel
from piip.weights.files import save_model

KEYS = {
    "name", "task", "input", "batch", "mode", "folded", "compiled", "seconds", "images_per_second", "gmacs",
    "gmacs_by_part", "rate", "roof", "share_of_roof", "peak_memory_gb", "weights_gb", "parts", "machine",
}  # fmt: skip
PARTS = {"branch 0", "branch 1", "interactions", "merge", "maps", "neck", "head"}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_model(PIIPModel(tiny.model(2)), tmp_path / "tiny.safetensors")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that moves by a second whenever somebody looks, so that times are counts."""
    seconds = itertools.count()
    for module in (machine, run, stopwatch):
        monkeypatch.setattr(module, "now", lambda device: float(next(seconds)))


def test_figures_of_saved_weights_belong_together(weights: Path, clock: None) -> None:
    figures = benchmark(weights, size=96, batch=2, rounds=2, device="cpu")
    assert figures.keys() == KEYS
    assert (figures["name"], figures["input"], figures["mode"]) == ("tiny", [96, 96], "inference")
    assert figures["folded"]
    assert figures["images_per_second"] == pytest.approx(2 / figures["seconds"])
    assert figures["gmacs"] == pytest.approx(2 * sum(figures["gmacs_by_part"].values()))
    assert figures["share_of_roof"] == pytest.approx(figures["rate"] / figures["roof"])
    assert figures["roof"] > 0
    assert {part["part"] for part in figures["parts"]} == PARTS
    assert sum(part["seconds"] for part in figures["parts"]) == pytest.approx(figures["seconds"])
    assert sum(part["share"] for part in figures["parts"]) == pytest.approx(1)
    assert all(part["seconds"] >= 1 for part in figures["parts"])
    assert figures["machine"]["threads"] == torch.get_num_threads()


def test_folding_counts_fewer_multiply_adds(weights: Path) -> None:
    plain, folded = (benchmark(weights, 96, fold=fold, rounds=1, device="cpu") for fold in (False, True))
    assert not plain["folded"]
    assert folded["gmacs"] < plain["gmacs"]


def test_training_counts_three_forwards_and_times_the_backward(weights: Path, clock: None) -> None:
    figures = benchmark(weights, 96, train=True, rounds=1, device="cpu")
    assert (figures["mode"], figures["folded"]) == ("training", False)
    assert figures["gmacs"] == pytest.approx(3 * sum(figures["gmacs_by_part"].values()))
    assert figures["parts"][-1]["part"] == "backward"
    assert figures["parts"][-1]["seconds"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "piip_nano_mask_rcnn",
        "piip_nano_upernet",
        "piip_nano_classifier",
        "piip_nano_dino",
        "piip_nano_convnext_mask_rcnn",
    ],
)
@pytest.mark.parametrize("train", [False, True])
def test_every_task_runs(name: str, train: bool) -> None:
    figures = benchmark(name, size=64, train=train, rounds=1, device="cpu")
    assert figures["gmacs"] > 0
    assert figures["parts"]


def test_the_command_prints_a_table_or_json(weights: Path) -> None:
    arguments = ["benchmark", str(weights), "--size", "64", "--rounds", "1", "--device", "cpu"]
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(printed.stdout).keys() == KEYS
    table = CliRunner().invoke(app, arguments)
    assert "images/s" in table.stdout
    assert "branch 0" in table.stdout


def test_peak_memory_is_that_of_the_work_alone() -> None:
    torch.ones(30_000_000).sum()  # 120 MB before
    peak = peak_memory(lambda: torch.ones(10_000_000).sum(), torch.device("cpu"))
    assert peak is None or 0.03 < peak < 0.06


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"rounds": 0}, {"size": 8}])
def test_wrong_arguments_are_refused(weights: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"use (1|at least)"):
        benchmark(weights, **wrong)
