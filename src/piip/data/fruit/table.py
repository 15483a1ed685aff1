"""What the fruit lies on: wood, cloth or stone, and plates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from piip.structures import Size

Field = NDArray[np.float32]

WOODS = ((150, 105, 65), (95, 65, 45), (190, 155, 115), (120, 110, 100))
CLOTHS = ((70, 105, 165), (95, 140, 95), (120, 120, 130), (190, 130, 140))
STONES = ((205, 205, 200), (75, 80, 88), (150, 145, 140))


def table(rng: np.random.Generator, size: Size) -> Field:
    """An empty table from above, RGB 0..255, [3, H, W], with a plate on every other one."""
    canvas = np.ascontiguousarray((_wood, _cloth, _stone)[rng.integers(3)](rng, size))
    if rng.random() < 0.5:
        _lay_plate(canvas, rng)
    return canvas


def noise(rng: np.random.Generator, size: Size, cells: tuple[int, int]) -> Field:
    """Smooth random values of about unit size, [H, W], that change over (rows, columns) of `cells`."""
    grid = Image.fromarray(rng.normal(size=cells).astype(np.float32))
    return np.asarray(grid.resize(size[::-1], Image.Resampling.BICUBIC))


def _colour(rng: np.random.Generator, choices: tuple[tuple[int, int, int], ...]) -> Field:
    colour = np.array(choices[rng.integers(len(choices))]) * rng.uniform(0.85, 1.15) + rng.uniform(-8, 8, 3)
    return _rgb(*colour)


def _rgb(*colour: float) -> Field:
    return np.array(colour, np.float32)[:, None, None]


def _wood(rng: np.random.Generator, size: Size) -> Field:
    """Planks from left to right, or upright."""
    upright = rng.random() < 0.4
    height, width = size[::-1] if upright else size
    grain = 9 * noise(rng, (height, width), (height // 5, 4)) + 7 * noise(rng, (height, width), (height // 2, 9))
    planks = rng.integers(4, 8)
    rows = np.arange(height) * planks / height
    tone = rng.normal(0, 9, planks).astype(np.float32)[rows.astype(int)]
    gap = (np.abs(rows - np.round(rows)) < 1.4 * planks / height).astype(np.float32)
    light = (grain + tone[:, None]) * (1 - 0.7 * gap)[:, None] - 45 * gap[:, None]
    canvas = _colour(rng, WOODS) + light * _rgb(1, 0.85, 0.65)
    return canvas.transpose(0, 2, 1) if upright else canvas


def _cloth(rng: np.random.Generator, size: Size) -> Field:
    """Checks of a colour and white."""
    y, x = np.arange(size[0])[:, None], np.arange(size[1])
    angle, period = rng.uniform(-0.5, 0.5), rng.uniform(28, 70)
    across = (x * math.cos(angle) + y * math.sin(angle)) / period % 1 < 0.5
    along = (y * math.cos(angle) - x * math.sin(angle)) / period % 1 < 0.5
    share = (across + along.astype(np.float32)) * np.float32(0.5 * rng.uniform(0.5, 1.0))
    folds = 8 * noise(rng, size, (4, 5))
    white = _rgb(235, 232, 225)
    return white + (_colour(rng, CLOTHS) - white) * share + folds


def _stone(rng: np.random.Generator, size: Size) -> Field:
    """Clouded, with a few veins."""
    clouds = noise(rng, size, (5, 6)) + 0.5 * noise(rng, size, (14, 18))
    veins = np.exp(-((clouds / 0.06) ** 2))
    speckles = 5 * noise(rng, size, (size[0] // 3, size[1] // 3))
    return _colour(rng, STONES) + 9 * clouds + speckles - 28 * veins


def _lay_plate(canvas: Field, rng: np.random.Generator) -> None:
    """A plate of plain china, in place, with its shadow."""
    height, width = canvas.shape[1:]
    radius = rng.uniform(0.28, 0.45) * height
    middle_y, middle_x = rng.uniform(0.3, 0.7) * height, rng.uniform(0.25, 0.75) * width
    reach = 1.25 * radius  # of the shadow, too
    top, left = max(0, math.floor(middle_y - reach)), max(0, math.floor(middle_x - reach))
    part = canvas[:, top : math.ceil(middle_y + reach), left : math.ceil(middle_x + reach)]
    y = (np.arange(part.shape[1], dtype=np.float32)[:, None] + np.float32(top - middle_y)) / np.float32(radius)
    x = (np.arange(part.shape[2], dtype=np.float32) + np.float32(left - middle_x)) / np.float32(radius)
    away = np.hypot(x, y)
    shadow = np.clip((1.12 - np.hypot(x - np.float32(0.05), y - np.float32(0.06))) * 9, 0, 1)
    part *= 1 - 0.35 * shadow
    china = _rgb(*[(240, 238, 232), (200, 215, 225), (225, 205, 180)][rng.integers(3)])
    facing = -(x * np.float32(0.6) + y * np.float32(0.8)) / np.clip(away, 0.05, None)
    rim = (14 * ((away > 0.68) & (away < 0.76)) + 10 * (away > 0.96)).astype(np.float32) * facing
    cover = np.clip((1 - away) * np.float32(radius) + 0.5, 0, 1)
    part *= 1 - cover
    part += (china + (rim - 10 * (away < 0.68))) * cover
