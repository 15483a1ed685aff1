"""`results.csv` as a picture: losses, learning rate, metrics over the epochs."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from piip.files import atomic_write

Curves = dict[str, list[float]]
OTHER = frozenset({"epoch", "step", "lr", "seconds"})
"""columns that are neither a loss nor a metric"""
VAL_LOSS = "val_loss"
FAR_APART = 10
"""times that the largest mean loss is the smallest, from where on losses are drawn on a logarithmic axis"""
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


def plot_curves(results: Path, picture: Path, best_metric: str | None = None) -> None:
    """Draw the curves of `results` (CSV) into `picture` (PNG); nothing where there is no epoch yet.

    `best_metric`: the column by which the best epoch is marked.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = read_results(results)
    if not columns:
        return
    metrics = headline([name for name in columns if name not in (*OTHER, VAL_LOSS) and not name.startswith("loss")])
    panels = {
        "losses": [name for name in columns if name.startswith("loss") or name == VAL_LOSS],
        "metrics": metrics,
        "learning rate (head)": ["lr"],
    }
    panels = {title: names for title, names in panels.items() if names}
    best = best_epoch(columns, best_metric)
    figure = Figure(figsize=(6 * len(panels), 5), layout="constrained")
    FigureCanvasAgg(figure)
    last = max(columns["epoch"])
    margin = max(0.5, last / 50)
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            epochs, values = _present(columns["epoch"], columns[name])
            thick = {"linewidth": 2.5} if name in ("loss", VAL_LOSS) else {}
            label = "loss (their sum)" if name == "loss" and len(names) > 2 else name
            axes.plot(epochs, values, marker="." if len(epochs) < 50 else None, label=label, **thick)
        if best is not None:
            axes.axvline(best, color="0.4", linestyle="--", linewidth=1, label=f"best {best_metric}, epoch {best}")
        axes.set(title=title, xlabel="epoch", xlim=(1 - margin, last + margin))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _set_height(axes, [columns[name] for name in names], title)
        axes.grid(alpha=0.3, which="both" if axes.get_yscale() == "log" else "major")
        if len(names) > 1 or best is not None:  # below, where it hides nothing
            axes.legend(fontsize="small", ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def best_epoch(columns: Curves, metric: str | None) -> int | None:
    """The first epoch with the best value, the lowest of a loss; None where there is none."""
    epochs, values = _present(columns["epoch"], columns.get(metric or "", [math.nan] * len(columns["epoch"])))
    if not values:
        return None
    best = min(values) if "loss" in str(metric) else max(values)
    return int(epochs[values.index(best)])


def _set_height(axes: Any, curves: list[list[float]], title: str) -> None:
    """From 0; metrics to 1; losses of unlike sizes on a logarithmic axis, so that the small ones can be read, too."""
    finite = [[value for value in values if math.isfinite(value)] for values in curves]
    means = [sum(values) / len(values) for values in finite if values]
    if title == "losses" and min(map(min, filter(None, finite)), default=0) > 0 and max(means) > FAR_APART * min(means):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    elif title == "metrics" and max(map(max, filter(None, finite)), default=2) <= 1:
        axes.set_ylim(0, 1)
    else:
        axes.set_ylim(0, None)


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
