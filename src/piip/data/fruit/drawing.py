"""Pieces of fruit, drawn by formulas: where a piece is, how high it is there, and its colour.

Coordinates are in units of a piece's radius, x to its right and y to its foot, whatever way it lies in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""one number per pixel, [H, W]"""

REACH = 1.45
"""nothing of a piece is farther from its middle, in radii"""

LIGHT = np.array([-0.5, -0.6, 0.62])
"""where the light comes from: the picture's upper left, and above"""


class Piece(NamedTuple):
    """One fruit as it lies in the picture, in a square of its own."""

    colour: Field
    """RGB, 0..255, [3, S, S]"""
    cover: Field
    """how much of each pixel it covers, 0..1, [S, S]"""


class Form(NamedTuple):
    """A fruit before it is lit."""

    inside: Field
    """distance to the outline in radii, about; positive inside"""
    colour: Field
    """RGB, 0..255, [3, S, S]"""
    height: Field | None = None
    """above the table in radii, for the shading; None: flat"""


def drawn(name: str, radius: float, angle: float, rng: np.random.Generator) -> Piece:
    """The fruit called `name` with a `radius` in pixels, turned by `angle` (radians, clockwise in the picture)."""
    half = math.ceil(radius * REACH) + 1
    right = np.arange(-half, half + 1, dtype=np.float32) / np.float32(radius)
    down = right[:, None]
    x = right * math.cos(angle) + down * math.sin(angle)
    y = down * math.cos(angle) - right * math.sin(angle)
    form = FRUITS[name](x, y, rng)
    cover = np.clip(form.inside * radius + 0.5, 0, 1)
    colour = form.colour if form.height is None else _lit(form.colour, form.height, radius)
    return Piece(np.clip(colour, 0, 255), cover)


def _lit(colour: Field, height: Field, radius: float) -> Field:
    """Shade on the side away from the light, and a highlight."""
    slope_y, slope_x = np.gradient(height * radius)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)

    def towards(x: float, y: float, z: float) -> Field:
        return np.clip((z - slope_x * x - slope_y * y) / length, 0, 1)

    light = LIGHT / np.linalg.norm(LIGHT)
    halfway = light + np.array([0, 0, 1])
    eighth = towards(*(halfway / np.linalg.norm(halfway)).tolist()) ** 8
    shine = eighth * (eighth**2) ** 2
    return colour * (0.5 + 0.55 * towards(*light.tolist())) + 110 * shine


def _plain(like: Field, *rgb: float) -> Field:
    return np.broadcast_to(_rgb(rgb), (3, *like.shape))


def _rgb(colour: Field | tuple[float, ...]) -> Field:
    """A colour or a picture of colours, [3, S, S], either of which can be mixed."""
    return np.array(colour, np.float32)[:, None, None] if isinstance(colour, tuple) else colour


def _mixed(below: Field, above: Field | tuple[float, ...], share: Field) -> Field:
    return below + (_rgb(above) - below) * np.clip(share, 0, 1)


def _dome(inside: Field, width: float = 1.0) -> Field:
    """Height over a form whose middle is `width` from the outline: a ball's."""
    return width * np.sqrt(np.clip(1 - (1 - np.clip(inside / width, 0, 1)) ** 2, 0, None)) * 0.9


def _apple(x: Field, y: Field, rng: np.random.Generator) -> Form:
    turn = np.arctan2(x, -y)  # 0 at the stem
    outline = 0.93 - 0.2 * np.exp(-((turn / 0.4) ** 2)) - 0.07 * np.exp(-(((np.abs(turn) - math.pi) / 0.3) ** 2))
    inside = outline - np.hypot(x, y)
    red = _plain(x, rng.uniform(175, 215), rng.uniform(20, 45), rng.uniform(25, 45))
    blush = np.exp(-((x - rng.uniform(-0.4, 0.4)) ** 2 + (y - 0.5) ** 2) / 0.35)
    streaks = 0.5 + 0.5 * np.sin(turn * 23 + rng.uniform(0, 6))
    colour = _mixed(red, (225, 190, 70), blush * rng.uniform(0.2, 0.9) + 0.12 * streaks)
    height = _dome(inside, 0.93)
    stem = 0.055 - np.hypot(x - 0.12 * (y + 0.7), np.clip(np.abs(y + 0.9) - 0.22, 0, None))
    along, across = (x - 0.4) * 0.9 + (y + 0.95) * -0.44, (x - 0.4) * 0.44 + (y + 0.95) * 0.9
    leaf = np.where(
        np.abs(along) < 0.34, 0.15 * np.sqrt(np.clip(1 - (along / 0.34) ** 2, 0, None)) - np.abs(across), -1
    )
    colour = _mixed(colour, (92, 62, 38), stem * 60 + 0.5)
    colour = _mixed(colour, (70, 140, 50), leaf * 60 + 0.5)
    return Form(np.maximum(inside, np.maximum(stem, leaf)), colour, height)


def _banana(x: Field, y: Field, rng: np.random.Generator) -> Form:
    bend = rng.uniform(1.0, 1.35)
    y = y + bend * 0.8  # the middle of the arc it follows
    turn, along = np.arctan2(x, y), np.hypot(x, y)
    end = 1.02 / bend
    part = turn / end
    width = 0.27 * np.sqrt(np.clip(1 - np.abs(part) ** 3.2, 0, None)) * (1 - 0.12 * part)
    inside = np.where(np.abs(part) < 1, width - np.abs(along - bend), -1.0)
    colour = _plain(x, rng.uniform(235, 250), rng.uniform(200, 220), rng.uniform(50, 90))
    colour = _mixed(colour, (190, 150, 40), np.exp(-(((along - bend + 0.1) / 0.03) ** 2)) * 0.5)
    colour = _mixed(colour, (90, 70, 35), (np.abs(part) - 0.84) * 12)
    freckles = np.sin(x * 31 + rng.uniform(0, 6)) * np.sin(y * 37 + rng.uniform(0, 6)) > 0.9
    colour = _mixed(colour, (150, 105, 40), freckles * rng.uniform(0, 0.6))
    return Form(inside, colour, _dome(inside, 0.27))


def _blueberry(x: Field, y: Field, rng: np.random.Generator) -> Form:
    away = np.hypot(x, y)
    colour = _plain(x, rng.uniform(45, 75), rng.uniform(60, 85), rng.uniform(125, 165))
    cx, cy = rng.uniform(-0.3, 0.3, 2)
    star = 0.34 * (0.75 + 0.25 * np.cos(5 * np.arctan2(y - cy, x - cx))) - np.hypot(x - cx, y - cy)
    colour = _mixed(colour, (30, 32, 70), star * 12 + 0.3)
    return Form(0.97 - away, colour, _dome(0.97 - away, 0.97))


def _kiwi(x: Field, y: Field, rng: np.random.Generator) -> Form:
    """A slice, seen from above."""
    away, turn = np.hypot(x, y * rng.uniform(1.0, 1.12)), np.arctan2(y, x)
    rays = 0.5 + 0.5 * np.sin(turn * 26)
    colour = _mixed(_plain(x, 120, 180, 50), (165, 210, 85), rays * 0.7 * np.clip((away - 0.25) * 3, 0, 1))
    colour = _mixed(colour, (225, 235, 175), (0.27 - away) * 9 + 0.4)
    seeds = (np.sin(turn * 19) > 0.35) & (np.abs(away - 0.42 - 0.05 * np.sin(turn * 9.5)) < 0.075)
    colour = _mixed(colour, (25, 25, 20), seeds * 0.95)
    colour = _mixed(colour, (115, 85, 50), (away - 0.9) * 25)
    return Form(0.97 - away, colour)


def _orange(x: Field, y: Field, rng: np.random.Generator) -> Form:
    inside = 0.97 - np.hypot(x, y)
    colour = _plain(x, rng.uniform(238, 252), rng.uniform(130, 155), rng.uniform(15, 45))
    cx, cy = rng.uniform(-0.45, 0.45, 2)
    pores = np.sin(x * 29 + rng.uniform(0, 6)) * np.sin(y * 29 + x * 11 + rng.uniform(0, 6))
    near = np.hypot(x - cx, y - cy)
    star = 0.13 * (0.7 + 0.3 * np.cos(5 * np.arctan2(y - cy, x - cx))) - near
    colour = _mixed(colour, (80, 110, 45), star * 25 + 0.3)
    height = _dome(inside, 0.97) + 0.006 * pores - 0.05 * np.exp(-((near / 0.16) ** 2))
    return Form(inside, colour, height)


def _strawberry(x: Field, y: Field, rng: np.random.Generator) -> Form:
    down = np.clip((y + 0.8) / 1.85, 1e-6, 1)
    width = 1.42 * rng.uniform(0.92, 1.05) * down**0.38 * (1 - down) ** 0.62
    inside = np.where((y > -0.8) & (y < 1.05), (width - np.abs(x)) * 0.75, -1.0)
    colour = _plain(x, rng.uniform(205, 235), rng.uniform(25, 50), rng.uniform(40, 60))
    row = np.round(y / 0.21)
    off_x = x / 0.24 + 0.5 * (row % 2)
    seeds = np.hypot((off_x - np.round(off_x)) * 0.24, (y / 0.21 - row) * 0.15) < 0.042
    colour = _mixed(colour, (250, 215, 120), seeds * 0.9)
    turn = np.arctan2(y + 0.66, x)
    crown = 0.55 * (0.62 + 0.38 * np.cos(6 * turn + 0.6)) - np.hypot(x, (y + 0.66) * 1.35)
    colour = _mixed(colour, (75, 150, 55), crown * 25 + 0.5)
    return Form(np.maximum(inside, crown), colour, _dome(inside, 0.75) + 0.1 * np.clip(crown * 4, 0, 1))


def _watermelon(x: Field, y: Field, rng: np.random.Generator) -> Form:
    """Half a slice, the rind below."""
    y = y + 0.42
    away = np.hypot(x, y)
    inside = np.minimum(1.0 - away, y)
    colour = _plain(x, rng.uniform(225, 240), rng.uniform(60, 85), rng.uniform(70, 90))
    colour = _mixed(colour, (250, 150, 140), (away - 0.5) * 1.5 * rng.uniform(0.4, 1))
    column, line = np.round(x / 0.27), np.round(y / 0.24)
    seed = np.hypot(x - column * 0.27 - 0.06 * (-1) ** line, (y - line * 0.24) * 0.6) < 0.042
    colour = _mixed(colour, (40, 25, 25), (seed & (away < 0.72) & (y > 0.1)) * 1.0)
    colour = _mixed(colour, (235, 240, 200), (away - 0.8) * 25)
    stripes = 0.5 + 0.5 * np.sin(np.arctan2(y, x) * 24)
    rind = _mixed(_plain(x, 45, 115, 50), (110, 170, 80), stripes * 0.7)
    colour = _mixed(colour, rind, (away - 0.88) * 25)
    return Form(inside, colour)


FRUITS: dict[str, Callable[[Field, Field, np.random.Generator], Form]] = {
    "apple": _apple,
    "banana": _banana,
    "blueberry": _blueberry,
    "kiwi": _kiwi,
    "orange": _orange,
    "strawberry": _strawberry,
    "watermelon": _watermelon,
}
"""forms by name, in the order of the labels"""
