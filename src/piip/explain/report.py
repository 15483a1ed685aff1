"""What an explanation leaves in a folder: the rows as JSON, and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from piip.backbone.merge import Merge
from piip.explain.ablation import Row
from piip.explain.contributions import contributions
from piip.files import numbered, write_json
from piip.model import PIIPModel
from piip.pictures.contributions import Look, draw_contributions
from piip.prediction.exports import save_picture


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """`explain.json`: a list, the whole model first."""
    write_json(folder / "explain.json", [row.to_dict() for row in rows], indent=2)


def write_pictures(model: PIIPModel, images: Iterable[tuple[Path, np.ndarray]], folder: Path) -> list[Path]:
    """A picture for each image, named after it; none for a model that merges no branches."""
    if not isinstance(model.backbone.merge, Merge):
        return []
    names: list[str] = []
    written = []
    for path, pixels in images:  # one at a time is in memory
        names.append(f"{path.stem}.png")
        draw = partial(picture_of, model, pixels)
        written.append(save_picture(draw, folder / numbered(names)[-1]))
    return written


def picture_of(model: PIIPModel, pixels: np.ndarray) -> np.ndarray:
    """Each branch's share of the merged map, and where the exchanges after the last group look, [H, W, 3] uint8."""
    found = contributions(model, pixels)
    sizes = [branch.size for branch in model.config.backbone.branches]
    captions = [
        f"branch {index} at {size}: {100 * float(share.mean()):.0f}%"
        for index, (size, share) in enumerate(zip(sizes, found.shares, strict=True))
    ]
    looks = [
        Look(f"branch {one.receiver} looks in {one.source}", one.points, one.weights, one.grid, one.shown)
        for one in found.looks
    ]
    return draw_contributions(found.image, found.shares, captions, looks)
