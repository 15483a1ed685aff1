"""A small data set drawn by program: coloured shapes of all sizes on textured ground, in COCO's format.

For the demo, for tests, and for a first look at a training: clear enough to be learnt from scratch in minutes, with
what real data has: classes that differ in shape and mostly in colour, on grey ground, objects from a twelfth to half
of the image, mild occlusion (the annotation is what remains visible), and images without objects.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from piip.data.run_lengths import run_lengths
from piip.files import write_json
from piip.structures import Size

CLASSES = ("disc", "square", "triangle", "star", "cross")

HUE_SPREAD = 0.04
"""standard deviation of a class's hues, on a circle of length 1"""

SUPERSAMPLING = 4
"""shapes are drawn this much larger and scaled down, for smooth edges"""

EMPTY_SHARE = 0.04
"""of the images, those without objects"""

MAX_HIDDEN = 0.15
"""of an object's area, hidden by a later one"""

MIN_CONTRAST = 90.0
"""distance in RGB (0..255 per channel) between an object and the ground, and whatever it lies on"""

DESCRIPTION = "shapes drawn by piip.data.synthetic"
"""in the annotation files, which are overwritten only if they say so"""

CATEGORY_OFFSET = 1
"""category ids are labels + 1, as in COCO"""


class _Shape(NamedTuple):
    label: int
    points: np.ndarray
    """outline, [P, 2] (x, y) in pixels"""
    cover: np.ndarray
    """how much of each pixel is covered, float in 0..1, [H, W], hidden parts included"""
    mask: np.ndarray
    """bool [H, W]: at least half covered"""
    colour: np.ndarray


def make_scenes(folder: str | Path, train: int = 160, val: int = 40, seed: int = 0, size: Size = (192, 192)) -> Path:
    """Write `train` and `val` images of `size` with annotations below `folder`, and return `folder`.

    The layout is COCO's: `train/*.png`, `val/*.png`, `annotations/instances_{train,val}.json`; outlines are
    polygons, or run lengths where an object is partly hidden. The same arguments write the same pixels; the first n
    images of a split do not depend on how many follow. Raises `ValueError` for sides below 32 pixels and negative
    counts, `FileExistsError` rather than overwrite annotations that were not made here.
    """
    if min(size) < 32:
        raise ValueError(f"size {size}: scenes need at least 32 pixels a side")
    if train < 0 or val < 0:
        raise ValueError(f"train {train} and val {val}: the numbers of images cannot be negative")
    folder = Path(folder)
    files = {name: folder / "annotations" / f"instances_{name}.json" for name in ("train", "val")}
    for file in files.values():
        if file.exists() and DESCRIPTION not in file.read_text(encoding="utf-8", errors="ignore"):
            raise FileExistsError(f"{file} holds other annotations; give a folder of its own for the scenes")
    for split, (name, count) in enumerate((("train", train), ("val", val))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        scenes = []
        for i in range(count):
            pixels, objects = _scene(np.random.default_rng([seed, split, i]), size)
            Image.fromarray(pixels).save(folder / name / _file_name(i))
            scenes.append(objects)
        _write_annotations(files[name], scenes, size)
    return folder


def _file_name(index: int) -> str:
    return f"{index:05d}.png"


def _write_annotations(path: Path, scenes: list[list[dict[str, Any]]], size: Size) -> None:
    """The annotation file comes last and whole: what it names exists already."""
    height, width = size
    images = [{"id": i + 1, "file_name": _file_name(i), "width": width, "height": height} for i in range(len(scenes))]
    pairs = [(i + 1, obj) for i, objects in enumerate(scenes) for obj in objects]
    annotations = [{"id": number, "image_id": i, **obj} for number, (i, obj) in enumerate(pairs, start=1)]
    categories = [{"id": label + CATEGORY_OFFSET, "name": name} for label, name in enumerate(CLASSES)]
    content = {
        "info": {"description": DESCRIPTION},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    write_json(path, content)


def _scene(rng: np.random.Generator, size: Size) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """One image, uint8 [H, W, 3], and its annotations without ids."""
    ground_colour = rng.uniform(50, 205) + rng.uniform(-20, 20, 3)
    canvas = _ground(rng, size, ground_colour)
    shapes = [] if rng.random() < EMPTY_SHARE else _placed_shapes(rng, size, ground_colour)
    for shape in shapes:
        shading = 1 + 0.12 * _noise(rng, size, cells=6)[..., None]
        cover = shape.cover[..., None]
        canvas = canvas * (1 - cover) + np.clip(shape.colour * shading, 0, 255) * cover
    canvas += rng.normal(0, 4, canvas.shape)
    annotations = [_annotation(shape, shapes[i + 1 :], size) for i, shape in enumerate(shapes)]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), annotations


def _ground(rng: np.random.Generator, size: Size, colour: np.ndarray) -> np.ndarray:
    """A textured background, float [H, W, 3]: soft blotches, and stripes in every other image."""
    height, width = size
    texture = 14 * _noise(rng, size, cells=5) + 8 * _noise(rng, size, cells=24)
    if rng.random() < 0.5:
        angle, period = rng.uniform(0, math.pi), rng.uniform(0.04, 0.12) * max(size)
        y, x = np.mgrid[:height, :width]
        texture += 9 * np.sin(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / period)
    return np.clip(colour + texture[..., None] * rng.uniform(0.7, 1.3, 3), 0, 255)


def _noise(rng: np.random.Generator, size: Size, cells: int) -> np.ndarray:
    """Smooth random values of about unit size, float [H, W]."""
    grid = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
    return np.asarray(grid.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.float64)


def _placed_shapes(rng: np.random.Generator, size: Size, ground_colour: np.ndarray) -> list[_Shape]:
    """One to seven shapes, large ones first, so that small ones lie on top; none is hidden by much."""
    side = min(size)
    radii = np.sort(side * np.exp(rng.uniform(math.log(0.042), math.log(0.26), rng.integers(1, 8))))[::-1]
    shapes: list[_Shape] = []
    for radius in radii:
        for _ in range(8):
            shape = _random_shape(rng, float(radius), size, ground_colour)
            if _fits(shape, shapes):
                shapes.append(shape)
                break
    return shapes


def _fits(shape: _Shape, shapes: list[_Shape]) -> bool:
    """Whether all shapes remain visible, and this one stands out, if it is laid on top of the others."""
    for i, below in enumerate(shapes):
        overlaps = (below.mask & shape.mask).any()
        if overlaps and np.linalg.norm(shape.colour - below.colour) < MIN_CONTRAST:
            return False
        if overlaps and _hidden(below, [*shapes[i + 1 :], shape]) > MAX_HIDDEN:
            return False
    return True


def _random_shape(rng: np.random.Generator, radius: float, size: Size, ground_colour: np.ndarray) -> _Shape:
    label = int(rng.integers(len(CLASSES)))
    points = _OUTLINES[CLASSES[label]]() * radius * rng.uniform(0.85, 1.15, 2)
    angle = rng.uniform(-0.3, 0.3)  # upright enough that a square stays a square
    cos, sin = math.cos(angle), math.sin(angle)
    points = points @ np.array([[cos, sin], [-sin, cos]])
    points -= points.min(axis=0)
    free = np.array(size[::-1]) - points.max(axis=0)
    points = points + rng.uniform(0, 1, 2) * np.maximum(free, 0)
    colour = _class_colour(rng, label)
    while np.linalg.norm(colour - ground_colour) < MIN_CONTRAST:
        colour = _class_colour(rng, label)
    cover = _cover(points, size)
    return _Shape(label, points, cover, cover >= 0.5, colour)


def _class_colour(rng: np.random.Generator, label: int) -> np.ndarray:
    """A vivid colour (RGB, 0..255) around the class's hue."""
    hue = (label / len(CLASSES) + rng.normal(0, HUE_SPREAD)) % 1
    saturation, value = rng.uniform(0.55, 1.0, 2)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _cover(points: np.ndarray, size: Size) -> np.ndarray:
    """How much of each pixel a shape covers: float in 0..1, [H, W]."""
    height, width = size
    large = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    # Pillow names pixels by their centres, outlines here are in continuous coordinates.
    ImageDraw.Draw(large).polygon([(x, y) for x, y in points * SUPERSAMPLING - 0.5], fill=255)
    return np.asarray(large.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _visible(shape: _Shape, above: list[_Shape]) -> np.ndarray:
    mask = shape.mask.copy()
    for other in above:
        mask &= ~other.mask
    return mask


def _hidden(shape: _Shape, above: list[_Shape]) -> float:
    return 1 - _visible(shape, above).sum() / max(shape.mask.sum(), 1)


def _annotation(shape: _Shape, above: list[_Shape], size: Size) -> dict[str, Any]:
    """COCO's fields for the visible part of a shape."""
    visible = _visible(shape, above)
    outline: Any = [[round(float(value), 2) for value in shape.points.ravel()]]
    (x1, y1), (x2, y2) = shape.points.min(axis=0), shape.points.max(axis=0)
    if (visible != shape.mask).any():
        outline = {"size": list(size), "counts": run_lengths(visible).tolist()}
        rows, columns = visible.any(axis=1).nonzero()[0], visible.any(axis=0).nonzero()[0]
        x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    box = [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)]
    return {
        "category_id": shape.label + CATEGORY_OFFSET,
        "bbox": box,
        "area": float(visible.sum()),
        "segmentation": outline,
        "iscrowd": 0,
    }


def _polar(angles: np.ndarray, radii: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _disc() -> np.ndarray:
    return _polar(np.linspace(0, 2 * math.pi, 32, endpoint=False), np.ones(32))


def _square() -> np.ndarray:
    return np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * 0.9


def _triangle() -> np.ndarray:
    return np.array([[0.0, -1.05], [1.05, 0.85], [-1.05, 0.85]])


def _star() -> np.ndarray:
    angles = np.linspace(0, 2 * math.pi, 10, endpoint=False) - math.pi / 2
    return _polar(angles, np.where(np.arange(10) % 2, 0.48, 1.15))


def _cross() -> np.ndarray:
    arm = np.array([[-0.33, -1.05], [0.33, -1.05], [0.33, -0.33]])
    turn = np.array([[0.0, 1], [-1, 0]])
    return np.concatenate([arm @ np.linalg.matrix_power(turn, k) for k in range(4)])


_OUTLINES: dict[str, Callable[[], np.ndarray]] = dict(
    zip(CLASSES, (_disc, _square, _triangle, _star, _cross), strict=True)
)
"""outlines around (0, 0) with a radius of about 1, y downwards, [P, 2]"""
