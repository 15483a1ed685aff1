from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluation.test_thresholds import an_image, data_of
from toy_training import toy_config, toy_model, toy_settings

import piip
from piip import processes, tasks
from piip.data.synthetic import make_scenes
from piip.evaluation.coco import evaluate_results
from piip.model import PIIPModel
from piip.prediction.options import EVERYTHING
from piip.tasks import detection
from piip.training.settings import Settings
from piip.training.start import start_run, with_best_metric
from piip.training.validation import ValidationLoss, check_metric, in_tiles
from piip.weights.card import read_facts


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


def test_several_processes_share_its_batches(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has every third batch of two; the sum of all is what one process finds, to the last bit."""
    task, described = tasks.of(toy_config()), toy_config()
    data = task.validation_split(scenes)
    assert data is not None
    described = task.adapted(described, data)
    model = PIIPModel(described).eval()
    measured = ValidationLoss(task, described, data, toy_settings(batch_size=1, log="none"))
    alone = measured(model)
    found: list[dict[int, float]] = []

    def found_by_all(mine: dict[int, float]) -> list[dict[int, float]]:
        found.append(mine)
        return found

    monkeypatch.setattr(processes, "found_by_all", found_by_all)
    monkeypatch.setattr(processes, "from_main", lambda mine: mine)
    monkeypatch.setattr(processes, "count", lambda: 1 if processes._apart else 3)
    for rank in range(3):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        together = measured(model)
    assert together == alone
    assert [list(part) for part in found] == [[0], [1], []]


def test_the_lowest_loss_is_the_best(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = toy_settings(
        data=str(scenes), epochs=2, batch_size=1, grad_accumulation=1, best_metric="val_loss", log="none", freeze="1"
    )
    result, _ = start_run(toy_config(), None, settings, tmp_path, "run")
    losses = [row["val_loss"] for row in result.history]
    said = capsys.readouterr().err
    assert f"val_loss {losses[1]:.3f}" in said
    assert "\nfrozen  branch 1: " in said
    assert result.metric == "val_loss"
    assert result.best == min(losses)
    assert result.best_epoch == int(np.argmin(losses)) + 1
    assert "val_loss" in (result.folder / "results.csv").read_text().splitlines()[0]


def test_what_is_trained_on_tiles_is_evaluated_in_tiles(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = toy_settings(data=str(scenes), epochs=1, batch_size=1, log="none", augmentation={"tiles": 40})
    result, _ = start_run(toy_config(), None, settings, tmp_path, "run")
    assert "seed 0, evaluated in tiles of 40 pixels" in capsys.readouterr().err
    again = piip.PIIP(result.folder, "cpu")
    found = {tiles: again.val(scenes, output=tmp_path / str(tiles), tiles=tiles, workers=0) for tiles in (None, 40)}
    whole, tiled = ((tmp_path / str(tiles) / "predictions.json").read_text() for tiles in found)
    assert whole != tiled, "or the test says nothing"
    assert (result.folder / "val" / "predictions.json").read_text() == tiled
    measured = {name: result.history[-1][name] for name in ("box_AR100", "mask_AR100")}
    assert measured.items() <= found[40].scalars().items()
    facts = read_facts(result.last_weights)
    assert facts is not None
    assert facts.tiles == 40
    for tiles, expected in ((None, found[40]), (0, found[None])):
        assert next(again.explain(scenes, tiles=tiles, pictures=0)).metrics == expected.scalars()


@pytest.mark.parametrize(
    ("given", "side"),
    [
        ({}, None),
        ({"augmentation": {"tiles": 40}}, 40),
        ({"augmentation": {"tiles": 40}, "val_tiles": 0}, None),
        ({"augmentation": {"tiles": {"side": 40, "keep": 0.5}}, "val_tiles": 48}, 48),
        ({"augmentation": {"kind": "segmentation", "tiles": 40}}, 40),
        ({"val_tiles": 48}, 48),
        ({"augmentation": {"kind": "classification"}}, None),
    ],
)
def test_tiles_of_evaluations(given: dict[str, object], side: int | None) -> None:
    assert in_tiles(Settings.model_validate(given)) == replace(EVERYTHING, tiles=side)


def test_the_loss_of_tiles(scenes: Path) -> None:
    task, described = tasks.of(toy_config()), toy_config()
    data = task.validation_split(scenes)
    assert data is not None
    described = task.adapted(described, data)
    torch.manual_seed(0)
    model = PIIPModel(described).eval()
    of_tiles, of_whole = ({"augmentation": {"tiles": 24}, "val_tiles": side} for side in (None, 0))
    measured = [
        ValidationLoss(task, described, data, toy_settings(log="none", **given)) for given in (of_tiles, of_whole)
    ]
    assert measured[0](model) == measured[0](model)
    assert measured[0](model) != measured[1](model)
    assert measured[1](model) == ValidationLoss(task, described, data, toy_settings(log="none"))(model)


def test_a_classifier_has_no_tiles(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), augmentation={"kind": "classification"}, val_tiles=64)
    with pytest.raises(ValueError, match="gives an image one class"):
        start_run(piip.PIIP("piip_nano_classifier", "cpu").config, None, settings, tmp_path)


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
