"""Pictures at a size one can read, with a line of text above, and two of them side by side."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from piip.pictures.colours import BLACK, WHITE
from piip.pictures.lettering import fitted, one_line, text_font

READABLE = 640
"""pixels of the longer side to which smaller images are enlarged, at least, before anything is drawn on them"""
MOST_TIMES = 32
"""a single pixel need not fill the screen"""


def times_for(size: tuple[int, int], least: int = READABLE) -> int:
    """How many times as large an image of (height, width) has to be drawn so that its longer side has `least` pixels.

    >>> times_for((128, 192)), times_for((480, 640))
    (4, 1)
    """
    return min(MOST_TIMES, max(1, math.ceil(least / max(size))))


def enlarged(image: np.ndarray, times: int) -> np.ndarray:
    """`image` [H, W, 3] uint8, `times` as large and smooth in between; itself for 1."""
    if times == 1:
        return image
    height, width = image.shape[:2]
    return np.array(Image.fromarray(image).resize((width * times, height * times), Image.Resampling.BICUBIC))


def titled(picture: np.ndarray, text: str) -> np.ndarray:
    """`picture` [H, W, 3] uint8 below a line of text."""
    height, width = picture.shape[:2]
    font_size = min(max(round(math.sqrt(height * width) / 32), 12), 80)
    line = round(font_size * 1.6)
    canvas = Image.new("RGB", (width, height + line), WHITE)
    canvas.paste(Image.fromarray(picture), (0, line))
    shown = fitted(text, font_size, width - font_size)
    font = text_font(one_line(text), font_size)
    ImageDraw.Draw(canvas).text((font_size // 2, line // 2), shown, fill=BLACK, font=font, anchor="lm")
    return np.array(canvas)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures, each [H, W, 3] uint8, next to each other on white."""
    gap = max(4, left.shape[1] // 80)
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + gap + right.shape[1], 3), 255, dtype=np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + gap :] = right
    return canvas
