"""Pictures of an evaluation: precision over recall, and what is taken for what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.ops import box_iou

from piip.console import printable
from piip.evaluation.coco import Averages, CocoResult
from piip.files import atomic_write
from piip.pictures.colours import class_colour
from piip.pictures.lettering import written_out

if TYPE_CHECKING:
    from piip.data.detection.annotations import CocoData, CocoImage

CURVES = 10
"""classes that get a curve and a name of their own; with more, only the three best and the three worst"""
CELLS = 26
"""up to this many rows the confusion matrix has numbers in its cells"""
NAMES = 100
"""up to this many rows the confusion matrix has names"""


OTHER_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei",
    "SimHei", "Yu Gothic", "Meiryo", "Malgun Gothic", "PingFang SC", "Hiragino Sans GB", "Apple SD Gothic Neo",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Arial Unicode MS", "Noto Sans", "Unifont",
)  # fmt: skip
"""tried in this order, where the system has them, for letters that matplotlib's own font lacks"""


def confusion_matrix(results: list[CocoResult], data: CocoData, *, iou: float = 0.5, score: float = 0.25) -> np.ndarray:
    """Count what each annotated object was detected as, by its box.

    Args:
        results: of the images of `data`, in its ids
        iou: overlap from which a detection is of an object
        score: detections below it are left out

    Returns:
        [C + 1, C + 1] int64: rows are annotated classes, columns detected ones, the last of each is background.
        `[k, -1]` counts objects of class k that were missed, `[-1, k]` detections of class k where no object is.
        Each object and detection takes part in one pair at most; pairs of the right class go first, then those
        with more overlap. A detection on a crowd region counts nowhere.
    """
    classes = len(data.classes)
    labels = {category_id: label for label, category_id in enumerate(data.category_ids)}
    by_image: dict[int, list[CocoResult]] = defaultdict(list)
    for result in results:
        if result["score"] >= score:
            by_image[result["image_id"]].append(result)
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    for image in data.images:
        found = by_image.get(image.id, [])
        corners = torch.tensor([result["bbox"] for result in found], dtype=torch.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        detected = np.array([labels[result["category_id"]] for result in found], dtype=np.int64)
        _count(matrix, image, corners, detected, iou)
    return matrix


def _count(matrix: np.ndarray, image: CocoImage, boxes: torch.Tensor, detected: np.ndarray, iou: float) -> None:
    objects = [item for item in image.objects if not item.crowd]
    annotated = np.array([item.label for item in objects], dtype=np.int64)
    truth = torch.tensor([tuple(item.box) for item in objects], dtype=torch.float64).reshape(-1, 4)
    overlap = box_iou(truth, boxes).numpy()
    rows, columns = np.nonzero(overlap >= iou)
    right = annotated[rows] == detected[columns]
    free_objects, free_detections = set(range(len(annotated))), set(range(len(detected)))
    for k in np.lexsort((-overlap[rows, columns], ~right)):
        row, column = int(rows[k]), int(columns[k])
        if row in free_objects and column in free_detections:
            free_objects.remove(row)
            free_detections.remove(column)
            matrix[annotated[row], detected[column]] += 1
    for row in free_objects:
        matrix[annotated[row], -1] += 1
    crowds = torch.tensor([tuple(item.box) for item in image.objects if item.crowd], dtype=torch.float64)
    on_crowd = _share_inside(boxes, crowds.reshape(-1, 4)) >= iou
    for column in free_detections:
        if not on_crowd[column]:
            matrix[-1, detected[column]] += 1


def _share_inside(boxes: torch.Tensor, regions: torch.Tensor) -> np.ndarray:
    """[N]: the largest share of each box's area that one of the regions covers."""
    if not len(regions):
        return np.zeros(len(boxes))
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1).clamp(min=1e-9)
    return (common / area[:, None]).amax(1).numpy()


def plot_confusion(matrix: np.ndarray, classes: Sequence[str], path: str | Path) -> Path:
    """Draw a matrix of `confusion_matrix` as PNG: colours are shares of each row, numbers are counts."""
    return plot_matrix(matrix, [*classes, "background"], path, columns="detected as")


def plot_matrix(
    matrix: np.ndarray, names: Sequence[str], path: str | Path, columns: str = "predicted as", percent: bool = False
) -> Path:
    """Draw counts by annotated (rows) and predicted class as PNG: colours are shares of each row.

    Args:
        matrix: [N, N] counts
        names: of rows and columns
        path: of the picture
        columns: what the columns say of the rows
        percent: write the shares into the cells instead of the counts
    """
    names, fonts = _lettering(names)
    count = len(names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(5.5, 2.5 + 0.45 * count), 20.0)
    figure = _figure(side + 1.0, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    title = max(10.0, side)
    figure.colorbar(image, ax=axes, fraction=0.04).set_label("share of the row", fontsize=title)
    if count <= NAMES:
        font = 9 if count <= 40 else 7
        axes.set_xticks(range(count), names, rotation=90, fontsize=font, fontfamily=fonts)
        axes.set_yticks(range(count), names, fontsize=font, fontfamily=fonts)
    axes.set_xlabel(columns, fontsize=title)
    axes.set_ylabel("annotated as", fontsize=title)
    if count <= CELLS:
        for row, column in np.argwhere(matrix > 0):
            ink = "white" if shares[row, column] > 0.5 else "black"
            text = f"{100 * shares[row, column]:.0f}" if percent else str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8 if len(text) < 5 else 6)
    return _save(figure, path)


def _named(curves: np.ndarray, counted: list[int]) -> dict[int, dict[str, Any]]:
    """How the curves that get a name are drawn, by label: those of all classes, or of many the best and the worst."""
    if len(counted) <= CURVES:
        return {label: {"color": np.array(class_colour(label)) / 255 * 0.85, "linewidth": 1.5} for label in counted}
    ranked = sorted(counted, key=lambda label: -curves[:, label].mean())
    greens, reds = (0.0, 0.45, 0.2), (0.8, 0.15, 0.1)
    styles = ("-", "--", ":")
    best = {label: {"color": greens, "linestyle": style} for label, style in zip(ranked[:3], styles, strict=True)}
    worst = {label: {"color": reds, "linestyle": style} for label, style in zip(ranked[-3:], styles, strict=True)}
    return best | worst


def _entry(name: str, curve: np.ndarray) -> str:
    """A class in the legend, from which matplotlib leaves out what begins with "_"."""
    return f"{' ' * name.startswith('_')}{name} {curve.mean():.3f}"


def plot_precision_recall(averages: Averages, classes: Sequence[str], path: str | Path) -> Path:
    """Draw precision over recall at IoU 0.5 as PNG: the mean over classes, and each class, see `CURVES`."""
    curves = averages.precision[0]  # [101, classes]
    counted = [label for label in range(len(classes)) if curves[0, label] > -1]
    recall = np.linspace(0.0, 1.0, len(curves))
    names, fonts = _lettering(classes)
    figure = _figure(8.0, 5.0)
    axes = figure.add_subplot()
    named = _named(curves, counted)
    ranks = {label: rank for rank, label in enumerate(named)}
    for label in sorted(counted, key=lambda label: ranks.get(label, -1)):  # those without a name below the others
        curve = curves[:, label]
        if label in named:
            axes.plot(recall, curve, **named[label], label=_entry(names[label], curve))
        else:
            axes.plot(recall, curve, color="0.8", linewidth=0.6)
    if counted:
        mean = curves[:, counted].mean(axis=1)
        axes.plot(recall, mean, color="black", linewidth=2.5, label=f"mean of {len(counted)} classes {mean.mean():.3f}")
        if len(counted) > CURVES:
            axes.plot([], [], color="0.8", label=f"{len(counted) - len(named)} other classes")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), title="AP at IoU 0.5", frameon=False,
                    prop={"family": fonts})  # fmt: skip
    else:
        axes.text(0.5, 0.5, "no annotated objects", ha="center", va="center")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0.0, 1.0), ylim=(0.0, 1.02))
    axes.grid(alpha=0.3)
    return _save(figure, path)


def require_plots() -> None:
    """ImportError, with what to install, where no plot can be drawn: to be asked before an evaluation begins."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ImportError('plots need matplotlib: pip install "piip[train]"') from None


def _figure(width: float, height: float) -> Any:
    # the figure itself instead of pyplot: no window system, no global state, nothing to close
    require_plots()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        # tight: what is written beside a square matrix would be cut off
        figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight", pad_inches=0.15)
    return path


def _lettering(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names as they are written, and the families of the fonts that have their letters.

    Letters that no font here has are written out, as in "\\u732b": matplotlib would draw boxes, and warn of each.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    short = [_short(name) for name in names]
    families, missing = list(rcParams["font.family"]), set("".join(short))
    here = {font.name for font in fontManager.ttflist}
    for family in (*families, *(name for name in OTHER_FONTS if name in here)):
        font = get_font(findfont(FontProperties(family=[family])))
        found = {letter for letter in missing if font.get_char_index(ord(letter))}
        missing -= found
        if found and family not in families:
            families.append(family)
    return ["".join(written_out(c) if c in missing else c for c in name) for name in short], families


def _short(name: str) -> str:
    """A class name for an axis: not too long, no dollar sign that would begin a formula, nothing that is not drawn."""
    name = printable(" ".join(name.split())).replace("$", r"\$")
    return name if len(name) <= 24 else name[:23] + "…"
