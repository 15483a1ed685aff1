"""What the fruit lies on: wood, cloth or stone, and plates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from piip.structures import Size

Field = NDArray[np.float64]

WOODS = ((150, 105, 65), (95, 65, 45), (190, 155, 115), (120, 110, 100))
CLOTHS = ((70, 105, 165), (95, 140, 95), (120, 120, 130), (190, 130, 140))
STONES = ((205, 205, 200), (75, 80, 88), (150, 145, 140))


def table(rng: np.random.Generator, size: Size) -> Field:
    """An empty table from above, RGB 0..255, [H, W, 3], with a plate on every other one."""
    canvas = (_wood, _cloth, _stone)[rng.integers(3)](rng, size)
    if rng.random() < 0.5:
        _lay_plate(canvas, rng)
    return canvas


def noise(rng: np.random.Generator, size: Size, cells: tuple[int, int]) -> Field:
    """Smooth random values of about unit size, [H, W], that change over (rows, columns) of `cells`."""
    grid = Image.fromarray(rng.normal(size=cells).astype(np.float32))
    return np.asarray(grid.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.float64)


def _colour(rng: np.random.Generator, choices: tuple[tuple[int, int, int], ...]) -> Field:
    return np.array(choices[rng.integers(len(choices))]) * rng.uniform(0.85, 1.15) + rng.uniform(-8, 8, 3)


def _wood(rng: np.random.Generator, size: Size) -> Field:
    """Planks from left to right, or upright."""
    upright = rng.random() < 0.4
    height, width = size[::-1] if upright else size
    grain = 9 * noise(rng, (height, width), (height // 5, 4)) + 7 * noise(rng, (height, width), (height // 2, 9))
    planks = rng.integers(4, 8)
    rows = np.arange(height) * planks / height
    tone = rng.normal(0, 9, planks)[rows.astype(int)]
    gap = np.abs(rows - np.round(rows)) < 1.4 * planks / height
    light = (grain + tone[:, None]) * np.where(gap, 0.3, 1.0)[:, None] - 45.0 * gap[:, None]
    canvas = _colour(rng, WOODS) + light[..., None] * np.array([1.0, 0.85, 0.65])
    return np.ascontiguousarray(canvas.transpose(1, 0, 2)) if upright else canvas


def _cloth(rng: np.random.Generator, size: Size) -> Field:
    """Checks of a colour and white."""
    y, x = np.mgrid[: size[0], : size[1]]
    angle, period = rng.uniform(-0.5, 0.5), rng.uniform(28, 70)
    across = (x * math.cos(angle) + y * math.sin(angle)) / period % 1 < 0.5
    along = (y * math.cos(angle) - x * math.sin(angle)) / period % 1 < 0.5
    share = (0.5 * across + 0.5 * along)[..., None] * rng.uniform(0.5, 1.0)
    folds = 8 * noise(rng, size, (4, 5))
    return np.array([235.0, 232, 225]) * (1 - share) + _colour(rng, CLOTHS) * share + folds[..., None]


def _stone(rng: np.random.Generator, size: Size) -> Field:
    """Clouded, with a few veins."""
    clouds = noise(rng, size, (5, 6)) + 0.5 * noise(rng, size, (14, 18))
    veins = np.exp(-((clouds / 0.06) ** 2))
    speckles = 5 * noise(rng, size, (size[0] // 3, size[1] // 3))
    return _colour(rng, STONES) + (9 * clouds + speckles - 28 * veins)[..., None]


def _lay_plate(canvas: Field, rng: np.random.Generator) -> None:
    """A plate of plain china, in place, with its shadow."""
    height, width = canvas.shape[:2]
    radius = rng.uniform(0.28, 0.45) * height
    top, left = rng.uniform(0.3, 0.7) * height, rng.uniform(0.25, 0.75) * width
    y, x = np.mgrid[:height, :width]
    away = np.hypot(x - left, y - top) / radius
    shadow = np.clip((1.12 - np.hypot(x - left - 0.05 * radius, y - top - 0.06 * radius) / radius) * 9, 0, 1)
    canvas *= 1 - 0.35 * shadow[..., None]
    china = np.array([(240, 238, 232), (200, 215, 225), (225, 205, 180)][rng.integers(3)], dtype=np.float64)
    facing = ((left - x) * 0.6 + (top - y) * 0.8) / radius / np.clip(away, 0.05, None)
    rim = np.where((away > 0.68) & (away < 0.76), 14.0, np.where(away > 0.96, 10.0, 0.0)) * facing
    cover = np.clip((1 - away) * radius + 0.5, 0, 1)[..., None]
    canvas *= 1 - cover
    canvas += (china + rim[..., None] - 10 * (away < 0.68)[..., None]) * cover
