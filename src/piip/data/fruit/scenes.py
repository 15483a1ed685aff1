"""Pictures of fruit on tables, in COCO's format, generated: for the demo, where one wants to see something.

As in real pictures the sizes differ by more than ten times, small fruit lies in heaps, pieces hide parts of others,
and there are shadows, patterns and plates that are no fruit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from piip.data.fruit.drawing import FRUITS, drawn
from piip.data.fruit.table import noise, table
from piip.data.run_lengths import run_lengths
from piip.files import write_json
from piip.structures import Size

CLASSES = tuple(FRUITS)

RADII = {"apple": 52, "banana": 84, "blueberry": 15, "kiwi": 38, "orange": 54, "strawberry": 35, "watermelon": 100}
"""pixels, where the shorter side is 480"""

MAX_HIDDEN = 0.3
"""of a piece, by others that lie on it"""

DESCRIPTION = "fruit drawn by piip.data.fruit"
"""in the annotation files, which are overwritten only if they say so"""


class _Laid(NamedTuple):
    label: int
    rows: slice
    columns: slice
    """where it is in the picture"""
    mask: NDArray[np.bool_]
    """there, hidden parts included"""


def make_fruit(
    folder: str | Path,
    train: int,
    val: int,
    seed: int = 0,
    size: Size = (480, 640),
    kinds: Sequence[str] = CLASSES,
) -> Path:
    """Write `train` and `val` pictures of `size` (height, width) with annotations below `folder`, and return `folder`.

    The layout is COCO's: `train/*.jpg`, `val/*.jpg`, `annotations/instances_{train,val}.json`, masks as run lengths.
    The fruit is of `kinds`, which are the categories. The first n pictures of a split do not depend on how many follow.
    Raises `FileExistsError` rather than overwrite annotations that were not made here.
    """
    folder = Path(folder)
    files = {name: folder / "annotations" / f"instances_{name}.json" for name in ("train", "val")}
    for file in files.values():
        if file.exists() and DESCRIPTION not in file.read_text(encoding="utf-8", errors="ignore"):
            raise FileExistsError(f"{file} holds other annotations; give a folder of its own for the fruit")
    for split, (name, count) in enumerate((("train", train), ("val", val))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(count):
            pixels, objects = scene(np.random.default_rng([seed, split, i]), size, kinds)
            file_name = f"{i:05d}.jpg"
            Image.fromarray(pixels).save(folder / name / file_name, quality=92)
            images.append({"id": i + 1, "file_name": file_name, "height": size[0], "width": size[1]})
            annotations += [{"id": len(annotations) + n, "image_id": i + 1, **obj} for n, obj in enumerate(objects, 1)]
        content = {
            "info": {"description": DESCRIPTION},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in enumerate(kinds, start=1)],
        }
        write_json(files[name], content)
    return folder


def scene(
    rng: np.random.Generator, size: Size, kinds: Sequence[str] = CLASSES
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """One picture, uint8 [H, W, 3], and its annotations in COCO's fields, without ids; categories as `kinds` from 1."""
    canvas = table(rng, size)
    closeness = min(size) / 480 * math.exp(rng.uniform(-0.3, 0.3))
    owners = np.full(size, -1, np.int16)  # of every pixel, the piece on top
    laid: list[_Laid] = []
    for label, radius, place in sorted(_planned(rng, size, closeness, kinds), key=lambda plan: -plan[1]):
        _lay(canvas, owners, laid, kinds[label], label, radius, place, rng)
    light = 1 + 0.08 * noise(rng, size, (3, 3))
    canvas *= light * rng.uniform(0.92, 1.06, (3, 1, 1)).astype(np.float32)
    canvas += 3 * rng.standard_normal(canvas.shape, np.float32)
    annotations = [_annotation(piece, owners, i) for i, piece in enumerate(laid)]
    pixels = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)), annotations


def _planned(
    rng: np.random.Generator, size: Size, closeness: float, kinds: Sequence[str]
) -> list[tuple[int, float, tuple[float, float]]]:
    """Label, radius and place (x, y) of pieces that may be laid: some alone, small ones in heaps."""
    height, width = size
    plans = []
    for _ in range(rng.integers(4, 9)):
        label = int(rng.integers(len(kinds)))
        usual = RADII[kinds[label]] * closeness
        x, y = rng.uniform(0.04, 0.96) * width, rng.uniform(0.05, 0.95) * height
        heap = {"blueberry": 7, "strawberry": 3}.get(kinds[label], 1)
        for _ in range(rng.integers(1, heap + 1)):
            spread = 0.0 if heap == 1 else 2.2 * usual
            at = x + rng.normal(0, spread), y + rng.normal(0, spread)
            plans.append((label, usual * rng.uniform(0.85, 1.15), at))
    return plans


def _lay(
    canvas: NDArray[np.float32], owners: NDArray[np.int16], laid: list[_Laid], kind: str, label: int, radius: float,
    place: tuple[float, float], rng: np.random.Generator,
) -> None:  # fmt: skip
    """Draw a piece into `canvas` and note its pixels in `owners`, unless it would hide too much or lie outside."""
    height, width = owners.shape
    piece = drawn(kind, radius, rng.uniform(0, 2 * math.pi), rng)
    side = len(piece.cover)
    left, top = round(place[0]) - side // 2, round(place[1]) - side // 2
    rows, columns = slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    mask = piece.cover[part] >= 0.5
    if mask.sum() < 0.6 * (piece.cover >= 0.5).sum() or _hides_too_much(owners[rows, columns], mask, owners, laid):
        return
    _shade(canvas, piece.cover, top, left, radius)
    here, colour = canvas[:, rows, columns], piece.colour[:, part[0], part[1]]
    here += (colour - here) * piece.cover[part]
    owners[rows, columns][mask] = len(laid)
    laid.append(_Laid(label, rows, columns, mask))


def _hides_too_much(
    here: NDArray[np.int16], mask: NDArray[np.bool_], owners: NDArray[np.int16], laid: list[_Laid]
) -> bool:
    for below in np.unique(here[mask]):
        if below >= 0:
            other = laid[below]
            whole = other.mask.sum()
            visible = (owners[other.rows, other.columns] == below).sum() - (here[mask] == below).sum()
            if visible < (1 - MAX_HIDDEN) * whole:
                return True
    return False


def _shade(canvas: NDArray[np.float32], cover: NDArray[np.floating[Any]], top: int, left: int, radius: float) -> None:
    """A soft shadow to the lower right of where a piece will be, in place."""
    blur, offset = max(1.0, 0.1 * radius), round(0.13 * radius)
    edge = 2 * math.ceil(blur)
    soft = Image.fromarray(np.pad(cover * 255, edge).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    dark = np.asarray(soft, np.float32) / 510
    top, left = top - edge + offset, left - edge + offset
    height, width = canvas.shape[1:]
    rows = slice(max(0, top), max(0, min(height, top + len(dark))))
    columns = slice(max(0, left), max(0, min(width, left + len(dark))))
    dark = dark[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    canvas[:, rows, columns] *= 1 - dark * np.array([1.0, 0.95, 0.85], np.float32)[:, None, None]


def _annotation(piece: _Laid, owners: NDArray[np.int16], index: int) -> dict[str, Any]:
    """COCO's fields for the visible part of a piece, the `index`th that was laid."""
    visible = owners[piece.rows, piece.columns] == index
    rows, columns = visible.any(axis=1).nonzero()[0], visible.any(axis=0).nonzero()[0]
    left, top = piece.columns.start + int(columns[0]), piece.rows.start + int(rows[0])
    return {
        "category_id": piece.label + 1,
        "bbox": [left, top, int(columns[-1] + 1 - columns[0]), int(rows[-1] + 1 - rows[0])],
        "area": int(visible.sum()),
        "segmentation": {"size": list(owners.shape), "counts": run_lengths(owners == index).tolist()},
        "iscrowd": 0,
    }
