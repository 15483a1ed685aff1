"""What each branch of a pyramid gives to an image's merged map, and where exchanges look, in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from piip.pictures.colours import WHITE, class_colour
from piip.pictures.lettering import text_font
from piip.structures import Size

TILE = 360
"""pixels of a tile's longer side"""
CAPTION = 22
"""pixels of height for a line of text"""
QUERIES = 3
"""rows and columns of the queries whose looks are drawn"""
COLD, HOT = np.array([40.0, 80.0, 220.0]), np.array([225.0, 40.0, 30.0])
FAINTEST = 0.15
"""opacity of a point without weight"""


class Look(NamedTuple):
    """Where queries look."""

    caption: str
    points: Tensor
    """[Q, N, 2]: x and y, from 0 to 1 of the padded image"""
    weights: Tensor
    """[Q, N]"""
    grid: Size
    """of the queries, over the padded image"""
    shown: tuple[float, float] = (1.0, 1.0)
    """the image's height and width as shares of the padded one's"""


def draw_contributions(image: np.ndarray, shares: Tensor, captions: Sequence[str], looks: Sequence[Look]) -> np.ndarray:
    """Tiles side by side: the image, a map of each branch's share, and where queries look in a neighbour's map.

    Args:
        image: [H, W, 3] uint8.
        shares: [branches, H, W], 0 to 1.
        captions: of each branch.
        looks: each of another tile.

    Returns:
        [H', W', 3] uint8.
    """
    tiles = [_tile(image, "the image")]
    tiles += [
        _tile(_heated(image, share, 1 / len(shares)), caption) for share, caption in zip(shares, captions, strict=True)
    ]
    tiles += [_looks_tile(image, look) for look in looks]
    columns = min(len(tiles), 1 + len(captions))
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    page = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        page[top : top + height, left : left + width] = tile
    return page


def _heated(image: np.ndarray, share: Tensor, equal: float) -> np.ndarray:
    """The image in grey with the share from blue (none of the branch) over white (an equal part) to red (all of it)."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    value = share.numpy()[..., None]
    less, more = value / equal, (value - equal) / (1 - equal)
    colour = np.where(value < equal, COLD + (255 - COLD) * less, 255 + (HOT - 255) * more)
    return np.asarray((0.4 * grey + 0.6 * colour).round().clip(0, 255).astype(np.uint8))


def _looks_tile(image: np.ndarray, look: Look) -> np.ndarray:
    caption, points, weights, grid, shown = look
    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    picture = Image.fromarray(image).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    draw = ImageDraw.Draw(picture, "RGBA")
    down, across = picture.height / shown[0], picture.width / shown[1]  # of the padded image
    rows, columns = (
        torch.linspace(0, max(0, cells * share - 1), QUERIES + 2)[1:-1].round().long().tolist()
        for cells, share in zip(grid, shown, strict=True)
    )
    for number, (row, column) in enumerate((row, column) for row in rows for column in columns):
        query = row * grid[1] + column
        colour = class_colour(number)
        strongest = float(weights[query].max().clamp(min=1e-9))
        for (x, y), weight in zip(points[query].tolist(), weights[query].tolist(), strict=True):
            opacity = round(255 * (FAINTEST + (1 - FAINTEST) * weight / strongest))
            _dot(draw, x * across, y * down, 2.5, (*colour, opacity))
        centre = ((column + 0.5) / grid[1] * across, (row + 0.5) / grid[0] * down)
        draw.rectangle((centre[0] - 4, centre[1] - 4, centre[0] + 4, centre[1] + 4), fill=colour, outline=WHITE)
    return _captioned(np.asarray(picture), caption)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: tuple[int, int, int, int]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _tile(image: np.ndarray, caption: str) -> np.ndarray:
    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return _captioned(np.asarray(Image.fromarray(image).resize(size)), caption)


def _captioned(image: np.ndarray, caption: str) -> np.ndarray:
    page = Image.new("RGB", (image.shape[1] + 8, image.shape[0] + CAPTION + 8), WHITE)
    page.paste(Image.fromarray(image), (4, CAPTION))
    ImageDraw.Draw(page).text((6, 3), caption, fill=(30, 30, 30), font=text_font(caption, 14))
    return np.asarray(page)
