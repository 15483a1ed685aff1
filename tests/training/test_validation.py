from pathlib import Path

import numpy as np
import pytest
import torch
from toy_training import toy_config, toy_model, toy_settings

from piip import tasks
from piip.data.synthetic import make_scenes
from piip.training.start import start_run
from piip.training.validation import ValidationLoss


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_scenes(folder, train=3, val=2, size=(64, 64))
    return folder


def test_it_is_the_same_every_time_and_leaves_the_streams_alone(scenes: Path) -> None:
    model = toy_model().eval()
    task = tasks.of(model.config)
    data = task.validation_split(scenes)
    assert data is not None
    adapted = task.adapted(model.config, data)
    torch.manual_seed(0)
    model = type(model)(adapted).eval()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    measured = ValidationLoss(task, adapted, data, toy_settings(batch_size=1, log="none"))
    one, two = measured(model), measured(model)
    assert one == two > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_lowest_loss_is_the_best(scenes: Path, tmp_path: Path) -> None:
    settings = toy_settings(
        data=str(scenes), epochs=2, batch_size=1, grad_accumulation=1, best_metric="val_loss", log="none"
    )
    result, _ = start_run(toy_config(), None, settings, tmp_path, "run")
    losses = [row["val_loss"] for row in result.history]
    assert result.metric == "val_loss"
    assert result.best == min(losses)
    assert result.best_epoch == int(np.argmin(losses)) + 1
    assert "val_loss" in (result.folder / "results.csv").read_text().splitlines()[0]
