from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from piip.training.curves import best_epoch, plot_curves, read_results
from piip.training.report import write_results

HISTORY = [
    {"epoch": 1, "step": 10, "seconds": 3.0, "lr": 1e-4, "loss": 2.0, "loss_cls": 1.5},
    {"epoch": 2, "step": 20, "seconds": 3.0, "lr": 1e-4, "loss": 1.5, "loss_cls": 1.0, "AP": 0.1},
    {"epoch": 3, "step": 30, "seconds": 3.0, "lr": 1e-5, "loss": 1.2, "loss_cls": 0.9, "AP": 0.3},
]


def test_table_keeps_every_number_and_shows_gaps(tmp_path: Path) -> None:
    write_results(HISTORY, tmp_path / "results.csv")
    columns = read_results(tmp_path / "results.csv")
    assert list(columns) == ["epoch", "step", "seconds", "lr", "loss", "loss_cls", "AP"]
    assert columns["loss"] == [2.0, 1.5, 1.2]
    np.testing.assert_array_equal(columns["AP"], [np.nan, 0.1, 0.3])


def test_curves_are_drawn(tmp_path: Path) -> None:
    write_results(HISTORY, tmp_path / "results.csv")
    plot_curves(tmp_path / "results.csv", tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert picture.shape[1] > 1000  # three panels side by side
    for panel in np.array_split(picture, 3, axis=1):
        saturation = panel.max(axis=2).astype(int) - panel.min(axis=2)
        assert (saturation > 100).sum() > 100  # a coloured line in each


@pytest.mark.parametrize(("metric", "epoch"), [("AP", 2), ("val_loss", 3), ("F1", None), (None, None)])
def test_the_best_epoch_is_the_first_of_the_best(metric: str | None, epoch: int | None) -> None:
    columns = {"epoch": [1.0, 2, 3, 4], "AP": [np.nan, 0.5, 0.3, 0.5], "val_loss": [3.0, 2, 1, 1]}
    assert best_epoch(columns, metric) == epoch


def test_axes_have_whole_epochs_one_range_and_room_for_small_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [dict(row, loss_tiny=0.01 / row["epoch"], val_loss=3.0, AP=0.2 * row["epoch"]) for row in HISTORY]
    write_results(history, tmp_path / "results.csv")
    figures = []
    drawn = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), drawn(self, *a, **k)))
    plot_curves(tmp_path / "results.csv", tmp_path / "curves.png", "AP")
    losses, metrics, _ = axes = figures[0].axes
    assert len({one.get_xlim() for one in axes}) == 1
    assert all(float(tick).is_integer() for one in axes for tick in one.get_xticks())
    assert losses.get_yscale() == "log"
    assert "val_loss" in [line.get_label() for line in losses.get_lines()]
    assert metrics.get_ylim() == (0, 1)
    assert all("best AP, epoch 3" in [line.get_label() for line in one.get_lines()] for one in axes)


def test_one_epoch_without_metrics(tmp_path: Path) -> None:
    write_results(HISTORY[:1], tmp_path / "results.csv")
    plot_curves(tmp_path / "results.csv", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 800


def test_no_epoch_no_picture(tmp_path: Path) -> None:
    write_results([], tmp_path / "results.csv")
    plot_curves(tmp_path / "results.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "epoch,loss\n1,high\n"])
def test_other_tables_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"results\.csv: not a results\.csv of a training"):
        read_results(file)
