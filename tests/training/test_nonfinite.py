"""Steps that are not finite are left out, counted and named; several in a row end the run, which then may change."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import Crash, assert_same, at_step, crash, outcome
from torch import Tensor, nn
from toy_training import PlainModel, ToyData, toy_metric, toy_model, toy_settings

from piip.structures import Batch
from piip.training.checkpoint import load_checkpoint
from piip.training.folder import RunFolder
from piip.training.loop import RunResult, train
from piip.training.start import resume_run
from piip.weights.files import nonfinite_keys


class BreaksInEpochs(ToyData):
    """Image 5 is broken in these epochs (0-based)."""

    def __init__(self, *epochs: int) -> None:
        super().__init__(6)
        self.epochs = epochs

    def __getitem__(self, key: tuple[int, int]) -> Any:
        self.nan_at = 5 if key[0] in self.epochs else None
        return super().__getitem__(key)

    def file_of(self, index: int) -> str:
        return f"images/{index}.png"


class Normalised(PlainModel):
    """With a BatchNorm, whose statistics every forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        values = self.head(self.norm(batch.images).flatten(1))
        return {"loss_a": (values[:, 0] - 1).square().mean()}


class BrokenSlope(PlainModel):
    """The loss is finite, its gradient is not."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return super().loss(batch) | {"loss_c": (self.head.bias.sum() * 0).sqrt()}


def run(folder: Path, data: Any, model: Any = None, resume: bool = False, **changes: Any) -> RunResult:
    settings = toy_settings(batch_size=2, grad_accumulation=1, **changes)
    return train(model or toy_model(), data, settings, folder, toy_metric, resume=resume)


def test_a_step_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, BreaksInEpochs(1))
    assert (result.end, [row["step"] for row in result.history]) == ("finished", [3, 6, 9])
    assert all(torch.tensor(row["loss"]).isfinite() for row in result.history)
    written = json.loads((tmp_path / "skipped.json").read_text())
    (step,) = written["skipped_steps"]
    assert step["epoch"] == 2
    assert "loss_rpn_cls nan" in step["problem"]
    assert len(step["images"]) == 2
    assert "images/5.png" in step["images"]
    said = " ".join(capsys.readouterr().err.split())
    assert "of epoch 2 left out: its loss" in said
    assert "steps that were left out: 1, see" in said
    assert not nonfinite_keys(load_checkpoint(RunFolder(tmp_path).checkpoint)["model"])


def test_the_weights_are_those_without_the_step(tmp_path: Path) -> None:
    """Of one epoch: where its first steps ended, whatever BatchNorm saw in the last."""

    class Last(ToyData):
        def __getitem__(self, key: tuple[int, int]) -> Any:
            sample = super().__getitem__(key)
            if key[1] == self.bad:
                sample.image[0, 0, 0] = float("nan")
            return sample

    order = []

    class Spy(ToyData):
        def __getitem__(self, key: tuple[int, int]) -> Any:
            order.append(key[1])
            return super().__getitem__(key)

    states = []

    class Watched(Normalised):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            states.append({key: value.clone() for key, value in self.state_dict().items()})
            return super().loss(batch)

    run(tmp_path / "whole", Spy(6), Watched(), epochs=1, schedule="constant")
    data, broken = Last(6), Normalised()
    data.bad = order[-1]
    run(tmp_path / "broken", data, broken, epochs=1, schedule="constant")
    after_two_of_three = states[2]
    assert all(torch.equal(value, after_two_of_three[key]) for key, value in broken.state_dict().items())


def test_a_resumed_run_leaves_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = BreaksInEpochs(0, 1)
    run(tmp_path / "straight", data)
    at_step(monkeypatch, 7, crash)
    with pytest.raises(Crash):
        run(tmp_path / "resumed", data)
    monkeypatch.undo()
    run(tmp_path / "resumed", data, toy_model(9), resume=True)
    assert_same(outcome(tmp_path / "resumed"), outcome(tmp_path / "straight"))
    assert (tmp_path / "resumed" / "skipped.json").read_text() == (tmp_path / "straight" / "skipped.json").read_text()


def test_three_in_a_row_end_the_run_and_free_the_learning_rate(tmp_path: Path) -> None:
    model = BrokenSlope()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        FloatingPointError, match=r"3 steps in a row.*last at step 2 .*gradient \(norm nan\).*lr, precision"
    ):
        run(tmp_path, ToyData(8), model, epochs=1, ema=None)
    state = load_checkpoint(RunFolder(tmp_path).checkpoint)
    assert state["position"]["step"] == 3
    assert all(torch.equal(state["model"][key], before[key]) for key in before)
    with pytest.raises(ValueError, match="other settings: weight_decay"):
        run(tmp_path, ToyData(8), PlainModel(), resume=True, epochs=1, ema=None, weight_decay=0.2)
    result = run(tmp_path, ToyData(8), PlainModel(), resume=True, epochs=1, ema=None, lr=1e-5, seed=7, precision="bf16")
    assert result.end == "finished"
    groups = load_checkpoint(RunFolder(tmp_path).checkpoint)["optimizer"]["param_groups"]
    assert {group["peak_lr"] for group in groups} == {1e-5}
    assert max(group["lr"] for group in groups) <= 1e-5
    with pytest.raises(ValueError, match="other settings: lr"):
        run(tmp_path, ToyData(8), PlainModel(), resume=True, epochs=2, ema=None, seed=7, precision="bf16")


def test_the_command_allows_what_is_free(tmp_path: Path) -> None:
    for in_a_row, message in ((2, "keeps its lr"), (3, "no run to resume here")):
        (tmp_path / "skipped.json").write_text(json.dumps({"nonfinite_in_a_row": in_a_row}))
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            resume_run(tmp_path, {"lr": 1e-5})
