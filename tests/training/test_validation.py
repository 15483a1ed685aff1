from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluation.test_thresholds import an_image, data_of
from toy_training import toy_config, toy_model, toy_settings

from piip import tasks
from piip.data.synthetic import make_scenes
from piip.evaluation.coco import evaluate_results
from piip.tasks import detection
from piip.training.settings import Settings
from piip.training.start import start_run, with_best_metric
from piip.training.validation import ValidationLoss, check_metric


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


def test_a_new_run_on_crowded_images_keeps_the_epoch_that_is_best_by_all_their_objects() -> None:
    few, crowded = (data_of(an_image(1, *((0, 0, 0, False),) * count)) for count in (100, 101))
    usual, chosen = Settings(), Settings(best_metric="mask_AP")
    assert with_best_metric(usual, detection, few).best_metric is None
    assert with_best_metric(usual, detection, None).best_metric is None
    assert with_best_metric(chosen, detection, crowded).best_metric == "mask_AP"
    metric = with_best_metric(usual, detection, crowded).best_metric
    assert metric == "box_AP@1000"
    assert metric in evaluate_results([], crowded, masks=False).scalars()
    check_metric(toy_config(), metric)
