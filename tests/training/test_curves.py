from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piip.training.curves import plot_curves, read_results
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
