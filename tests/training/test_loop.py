"""What a run writes, when it ends, what it refuses, and that broken numbers never reach a file."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from toy_training import PlainModel, ToyData, toy_config, toy_metric, toy_model, toy_settings

from piip.model import PIIPModel
from piip.pictures.objects import draw_object_batch
from piip.structures import Batch
from piip.training import loop, report
from piip.training.checkpoint import load_checkpoint
from piip.training.curves import plot_curves
from piip.training.folder import RunFolder
from piip.training.loop import RunResult, train
from piip.weights.files import find_weights, load_model, nonfinite_keys


def train_plain(folder: Path, length: int = 12, evaluate: Any = None, **settings: Any) -> tuple[PlainModel, RunResult]:
    model = PlainModel()
    fields = {"ema": None, "grad_accumulation": 1, "batch_size": 4, "epochs": 1} | settings
    result = train(model, ToyData(length), toy_settings(**fields), folder, evaluate)  # type: ignore[arg-type]
    return model, result


def drawn(batch: Batch) -> np.ndarray:
    return draw_object_batch(batch, toy_config().preprocess, ("dark", "bright"))


def test_a_run_fills_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "plot_curves", plot_curves)
    model = toy_model()
    settings = toy_settings(epochs=2, batch_size=2, milestones=(0.5,))
    result = train(model, ToyData(4), settings, tmp_path, toy_metric, draw_batch=drawn)
    folder = RunFolder(tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/events")}
    assert len(events) == 1
    assert names - events == {
        "config.yaml",
        "results.csv",
        "curves.png",
        "train_batch0.png",
        "train_batch1.png",
        "weights/best.safetensors",
        "weights/last.safetensors",
        "weights/last.ckpt",
        "weights/last.previous.ckpt",
    }
    assert yaml.safe_load(folder.config.read_text())["training"]["epochs"] == 2
    with folder.results.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    losses = ["loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"]
    for row, kept in zip(rows, result.history, strict=True):
        assert {name: float(value) for name, value in row.items()} == kept
        assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in losses), rel=1e-5)
    assert Image.open(tmp_path / "train_batch0.png").size[0] >= 2 * 64
    assert (result.end, result.best_weights, result.last_weights) == ("finished", folder.best, folder.last)
    assert result.best == max(row["AP"] for row in result.history)
    assert find_weights(tmp_path) == folder.best
    assert toy_metric(load_model(tmp_path))["AP"] == result.best


def test_the_average_is_what_is_evaluated_and_given_away(tmp_path: Path) -> None:
    model = toy_model()
    seen: list[PIIPModel] = []

    def evaluate(evaluated: PIIPModel) -> dict[str, float]:
        seen.append(evaluated)
        return toy_metric(evaluated)

    train(model, ToyData(6), toy_settings(epochs=1, grad_accumulation=1), tmp_path, evaluate)
    assert seen[0] is not model
    weights = load_file(RunFolder(tmp_path).last)
    average, raw = seen[0].state_dict(), model.state_dict()
    assert all(torch.equal(weights[key], average[key]) for key in weights)
    assert not all(torch.equal(weights[key], raw[key]) for key in weights)


def test_without_average_and_evaluation(tmp_path: Path) -> None:
    model, result = train_plain(tmp_path)
    assert (result.best, result.best_weights, result.best_epoch) == (None, None, 0)
    assert find_weights(tmp_path) == result.last_weights
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in load_file(result.last_weights).items())


def test_same_seed_same_bits(tmp_path: Path) -> None:
    finals = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        model = toy_model()
        train(model, ToyData(6), toy_settings(epochs=1, seed=seed), tmp_path / name)
        finals.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(finals[0], finals[1])
    assert not torch.equal(finals[0], finals[2])


@pytest.mark.parametrize("length", [12, 10])
def test_accumulated_batches_equal_a_large_one(tmp_path: Path, length: int) -> None:
    """12 images: two full steps; 10: the second step has only 2 of 3 batches, and divides by 2."""
    small, result = train_plain(tmp_path / "a", length, batch_size=2, grad_accumulation=3, epochs=2)
    large, _ = train_plain(tmp_path / "b", length, batch_size=6, epochs=2)
    assert result.history[-1]["step"] == 4
    assert not torch.equal(large.head.weight, PlainModel().head.weight)
    torch.testing.assert_close(small.head.weight, large.head.weight, rtol=1e-5, atol=2e-6)


def test_clipping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original = loop.set_learning_rate

    def spy(optimizer: Any, factor: float) -> None:
        gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        original(optimizer, factor)

    monkeypatch.setattr(loop, "set_learning_rate", spy)
    train_plain(tmp_path / "clipped", grad_clip=0.1)
    clipped, norms[:] = list(norms), []
    train_plain(tmp_path / "free", grad_clip=None)
    assert clipped == pytest.approx([0.1] * 3, rel=1e-4)
    assert min(norms) > 1.0


def test_best_and_early_stop(tmp_path: Path) -> None:
    values = iter([0.1, 0.5, math.nan, 0.5, 0.4, 0.9])
    weights: list[Tensor] = []

    def evaluate(model: Any) -> dict[str, float]:
        weights.append(model.head.weight.detach().clone())
        return {"AP": next(values)}

    _, result = train_plain(tmp_path, epochs=9, patience=3, evaluate=evaluate)
    assert (result.end, result.best, result.best_epoch, len(result.history)) == ("early stop", 0.5, 2, 5)
    assert torch.equal(load_file(RunFolder(tmp_path).best)["head.weight"], weights[1])
    settings = toy_settings(ema=None, grad_accumulation=1, batch_size=4, epochs=9, patience=3)
    again = train(PlainModel(), ToyData(12), settings, tmp_path, evaluate, resume=True)  # type: ignore[arg-type]
    assert (again.end, len(again.history)) == ("early stop", 5)


def test_patience_is_of_evaluations(tmp_path: Path) -> None:
    """Whatever is between them."""
    values = iter([0.1, 0.2, 0.3, 0.3])
    _, result = train_plain(tmp_path, epochs=20, eval_interval=3, patience=1, evaluate=lambda _: {"AP": next(values)})
    assert (result.end, result.best, result.best_epoch, len(result.history)) == ("early stop", 0.3, 9, 12)


def test_an_undefined_metric_is_never_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, result = train_plain(tmp_path, epochs=3, patience=1, evaluate=lambda _: {"AP": math.nan})
    assert (result.end, result.best, result.best_epoch, result.best_weights) == ("finished", None, 0, None)
    assert find_weights(tmp_path) == result.last_weights
    assert torch.equal(load_file(result.last_weights)["head.weight"], model.state_dict()["head.weight"])
    assert "AP is undefined in epoch 3" in capsys.readouterr().err


def test_curves_that_cannot_be_drawn_hide_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(report, "plot_curves", fail)
    _, result = train_plain(tmp_path / "whole")
    assert result.end == "finished"
    monkeypatch.setattr(loop, "evaluation_is_due", lambda run: run.at.epoch == 1)

    def broken(_: PIIPModel) -> dict[str, float]:
        raise LookupError("the real one")

    with pytest.raises(LookupError, match="the real one"):
        train_plain(tmp_path / "broken", epochs=2, evaluate=broken)


def test_checkpoints_are_written_before_evaluations_and_after_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(loop, "save", lambda run: said.append(f"saved {run.at.epoch}"))

    def evaluate(_: PIIPModel) -> dict[str, float]:
        said.append("evaluated")
        return {"AP": 1.0}

    train_plain(tmp_path, epochs=3, eval_interval=2, save_interval=None, evaluate=evaluate)
    assert said == ["saved 1", "saved 1", "evaluated", "saved 2", "saved 2", "evaluated", "saved 3"]


@pytest.mark.parametrize(("minutes", "saved"), [(None, [3, 3]), (60.0, [3, 3]), (1e-9, [1, 2, 3, 3, 3])])
def test_checkpoints_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float | None, saved: list[int]
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(loop, "save", lambda run: steps.append(run.at.step))
    train_plain(tmp_path, save_interval=None, save_minutes=minutes, evaluate=lambda _: {"AP": 1.0})
    assert steps == saved


def test_evaluation_interval(tmp_path: Path) -> None:
    evaluated: list[int] = []

    def evaluate(model: Any) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        evaluated.append(1)
        return {"AP": float(len(evaluated))}

    _, result = train_plain(tmp_path, epochs=5, eval_interval=2, evaluate=evaluate)
    assert [row.get("AP") for row in result.history] == [None, 1.0, None, 2.0, 3.0]
    assert result.best_epoch == 5


def test_unknown_best_metric(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="best_metric 'AP' is not among the evaluation's metrics: box_AP, mask_AP"):
        train_plain(tmp_path, evaluate=lambda model: {"box_AP": 0.1, "mask_AP": 0.1})
    assert RunFolder(tmp_path).checkpoint.exists()  # the epoch is not lost


def test_nonfinite_weights_are_not_saved(tmp_path: Path) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        with torch.no_grad():
            model.head.bias[0] = float("inf")
        return {"AP": float("nan")}

    with pytest.raises(FloatingPointError, match=r"NaN or infinite weights at step 3, not saved: \['head\.bias'\]"):
        train_plain(tmp_path, evaluate=evaluate)
    assert not nonfinite_keys(load_checkpoint(RunFolder(tmp_path).checkpoint)["model"])
    assert not nonfinite_keys(load_file(RunFolder(tmp_path).last))


def test_another_run_is_not_overwritten(tmp_path: Path) -> None:
    train_plain(tmp_path)
    before = RunFolder(tmp_path).checkpoint.read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already"):
        train_plain(tmp_path)
    assert RunFolder(tmp_path).checkpoint.read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "'cuda' is not available here; use one of cpu"),
        ({"device": "cuda:1"}, "'cuda:1' is not available here; use one of cpu"),
        ({"precision": "fp16"}, 'needs a GPU; use precision "bf16"'),
    ],
)
def test_what_the_machine_lacks(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_plain(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
