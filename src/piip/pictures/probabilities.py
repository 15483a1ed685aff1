"""Class names and their probabilities written below and onto images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from piip.config import Preprocess
from piip.pictures.beside import enlarged, times_for
from piip.pictures.colours import BLACK, GREY, WHITE, class_colour
from piip.pictures.lettering import fitted, one_line, text_font
from piip.pictures.mosaic import mosaic
from piip.structures import Batch, Size

SHORTEST_SIDE = 256
"""pixels to which smaller images are enlarged, about, so that the caption can be read"""
LONGEST_SIDE = 4096
"""beyond which nothing is enlarged"""
LEAST_SHARE = 0.02
"""of a class in a target, to be written"""


def draw_probabilities(image: np.ndarray, ranked: Sequence[tuple[int, str, float]]) -> np.ndarray:
    """`image` [H, W, 3] uint8 with a panel below it: a bar, the name and the probability of each class of `ranked`.

    Args:
        image: RGB; a small one is enlarged by whole pixels, and one that is narrow too gets white beside it.
        ranked: (label, name, probability), the best first.
    """
    scale = max(1, min(math.ceil(SHORTEST_SIDE / min(image.shape[:2])), LONGEST_SIDE // max(image.shape[:2])))
    if scale > 1:
        image = image.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = image.shape[0], max(image.shape[1], SHORTEST_SIDE)
    font_size = min(max(round(width / 20), 11), 60)
    line = round(font_size * 1.6)
    canvas = Image.new("RGB", (width, height + line * len(ranked)), WHITE)
    canvas.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for number, (label, name, probability) in enumerate(ranked):
        top = height + number * line
        draw.rectangle((0, top + line - line // 5, width - 1, top + line - 2), fill=GREY)
        bar = round((width - 1) * probability)
        draw.rectangle((0, top + line - line // 5, bar, top + line - 2), fill=class_colour(label))
        percent = f"{probability:.1%}"
        room = width - text_font(percent, font_size).getlength(percent) - font_size
        font = text_font(one_line(name), font_size)
        draw.text((font_size // 4, top), fitted(name, font_size, room), fill=BLACK, font=font)
        draw.text((width - font_size // 4, top), percent, fill=BLACK, font=text_font(percent, font_size), anchor="ra")
    return np.array(canvas)


def draw_readable_probabilities(image: np.ndarray, ranked: Sequence[tuple[int, str, float]]) -> np.ndarray:
    """As `draw_probabilities`, below `image` enlarged to at least `beside.READABLE` pixels."""
    return draw_probabilities(enlarged(image, times_for((image.shape[0], image.shape[1]))), ranked)


def draw_class_batch(batch: Batch, preprocess: Preprocess, names: Sequence[str]) -> np.ndarray:
    """What a classifier is trained on: the first 16 images of `batch` with the classes in their targets."""

    def draw(pixels: np.ndarray, target: Tensor, size: Size) -> np.ndarray:
        shares = [(share, label) for label, share in enumerate(target.tolist()) if share >= LEAST_SHARE]
        best = sorted(shares, reverse=True)[:2]
        # What label smoothing gives to every class is not worth writing.
        written = [(share, label) for share, label in best if share > 2 * min(target.tolist())] or best[:1]
        return _written(pixels, [f"{names[label]} {share:.2f}" for share, label in written])

    return mosaic(batch, preprocess, draw)


def _written(pixels: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """The picture, as large as before, with lines of text on its lower edge."""
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    font_size = max(11, picture.width // 18)
    line = round(font_size * 1.3)
    top = picture.height - line * len(lines)
    draw.rectangle((0, top, picture.width, picture.height), fill=BLACK)
    for number, text in enumerate(lines):
        shown = fitted(text, font_size, picture.width)
        draw.text((font_size // 4, top + number * line), shown, fill=WHITE, font=text_font(one_line(text), font_size))
    return np.array(picture)
