"""`results.csv` as a picture: losses, learning rate, metrics over the epochs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from piip.files import atomic_write

Curves = dict[str, list[float]]
OTHER = frozenset({"epoch", "step", "lr", "seconds"})
"""columns that are neither a loss nor a metric"""
SHOWN = 6
"""metrics in one place"""


def read_results(path: Path) -> Curves:
    """The columns of a `results.csv`, NaN where a cell is empty. ValueError for another kind of file."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        columns = {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else {})}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a results.csv of a training: {error}") from error
    if rows and "epoch" not in columns:
        raise ValueError(f"{path}: not a results.csv of a training: no column 'epoch'")
    return columns


def plot_curves(results: Path, picture: Path) -> None:
    """Draw the curves of `results` (CSV) into `picture` (PNG); nothing where there is no epoch yet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = read_results(results)
    if not columns:
        return
    panels = {
        "training losses": [name for name in columns if name.startswith("loss")],
        "metrics": headline([name for name in columns if name not in OTHER and not name.startswith("loss")]),
        "learning rate (head)": ["lr"],
    }
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            epochs, values = _present(columns["epoch"], columns[name])
            axes.plot(epochs, values, marker="." if len(epochs) < 50 else None, label=name)
        axes.set(title=title, xlabel="epoch", ylim=(0, None))
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize="small")
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def headline(metrics: list[str]) -> list[str]:
    """The metrics to show where there is little room: all if they are few, else the main averages or the first.

    >>> headline(["box_AP", "box_AP50", "box_AP75", "box_APs", "box_APm", "box_APl", "box_AR100", "mask_AP"])
    ['box_AP', 'box_AP50', 'mask_AP']
    """
    if len(metrics) <= SHOWN:
        return metrics
    return [name for name in metrics if name.endswith(("AP", "AP50"))] or metrics[:SHOWN]


def _present(epochs: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Only the epochs that have a value."""
    pairs = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if math.isfinite(value)]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]
