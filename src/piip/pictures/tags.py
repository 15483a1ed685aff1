"""The tags of drawn objects: what is written on them, and where they hide least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import ImageDraw

from piip.pictures.colours import Colour, ink_on
from piip.pictures.lettering import one_line, text_font

Rectangle = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, right and bottom not included"""


MANY = 30
"""objects in a picture; of more, a label that finds no free place is left out: the colour tells the class"""
SMALLEST_FONT = 9
OF_AN_OBJECT = 0.4
"""height of a label among many objects, as a part of the side of a usual one"""
HIDDEN = 0.1
"""of an object, the most that a label among many may hide"""


class Tag(NamedTuple):
    """A label with its place."""

    text: str
    area: Rectangle
    colour: Colour
    font: Any


def texts_of(label: int, score: float | None, names: Sequence[str]) -> list[str]:
    """What to write, from the full text to what a small image has room for."""
    name = one_line(names[label]) if 0 <= label < len(names) else str(label)
    shorter = [f"{name[:n]}." for n in (16, 8, 4) if len(name) > n + 1]
    if score is None:
        return [name, *shorter]
    return [*(f"{text} {score:.2f}" for text in (name, *shorter)), name, *shorter]


def font_size_for(size: tuple[int, int], boxes: np.ndarray) -> int:
    """Of the labels in a picture of (width, height) with boxes [N, 4]: smaller where small objects stand close."""
    usual = min(max(round(math.sqrt(size[0] * size[1]) / 45), 11), 120)
    if len(boxes) <= MANY:
        return usual
    side = float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
    return min(usual, max(SMALLEST_FONT, round(OF_AN_OBJECT * side)))


def place_among(
    texts: list[str], box: Rectangle, size: tuple[int, int], colour: Colour, taken: list[Rectangle], boxes: np.ndarray,
    font_size: int,
) -> Tag | None:  # fmt: skip
    """As `place`, among many objects `boxes` [N, 4]: the first text and place that hide neither a label nor an object.

    None where there are none: neighbours can be told apart without their labels, but not under them.
    """
    font = text_font(texts[0], font_size)
    line = sum(font.getmetrics()) + 2 * _margin(font_size)
    labels = np.array(taken, dtype=np.int64).reshape(-1, 4)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for text in texts:
        length = math.ceil(font.getlength(text)) + 2 * _margin(font_size)
        if 2 * length > size[0] or 5 * line > size[1]:
            continue
        for area in _places(box, (length, line), size):
            beside = area[3] >= box[1] and area[1] <= box[3]  # else it would seem to be another's
            if beside and not _shared(area, labels).any() and (_shared(area, boxes) <= HIDDEN * areas).all():
                return Tag(text, area, colour, font)
    return None


def _shared(area: Rectangle, others: np.ndarray) -> np.ndarray:
    """[N]: pixels that `area` has in common with each of `others` [N, 4]."""
    start, end = np.maximum(area[:2], others[:, :2]), np.minimum(area[2:], others[:, 2:])
    return np.prod(np.maximum(0, end - start), axis=1)


def place(
    texts: list[str], box: Rectangle, size: tuple[int, int], colour: Colour, taken: list[Rectangle], font_size: int
) -> Tag | None:
    """The first of `texts` that fits into the image, where it hides no earlier label if possible.

    None in an image so small that a label would hide it.
    """
    width, height = size
    font = text_font(texts[0], font_size)
    line = sum(font.getmetrics()) + 2 * _margin(font_size)
    if 5 * line > height:
        return None
    for text in texts:
        length = math.ceil(font.getlength(text)) + 2 * _margin(font_size)
        if 2 * length <= width or (text == texts[-1] and length <= width):
            places = _places(box, (length, line), size)
            area = next((free for free in places if not any(_overlap(free, other) for other in taken)), places[0])
            return Tag(text, area, colour, font)
    return None


def _places(box: Rectangle, tag: tuple[int, int], size: tuple[int, int]) -> list[Rectangle]:
    """Where a tag of (width, height) may stand in the image: above its box, within or below it, then farther off."""
    left, top, right, bottom = box
    step = tag[1]
    beside = (top, bottom) if bottom - top > 2 * step else (bottom, top)  # a tag within a small box would hide it
    rows = (top - step, *beside, bottom - step, top + step, top - 2 * step, bottom + step, top + 2 * step)
    fitting = [y for y in rows if 0 <= y <= size[1] - step] or [0]
    places = []
    for y in fitting:
        for x in (left, right - tag[0]):
            x = min(max(x, 0), size[0] - tag[0])
            places.append((x, y, x + tag[0], y + step))
    return places


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def write(draw: ImageDraw.ImageDraw, tag: Tag) -> None:
    """Draw the tag where it was placed."""
    left, top, right, bottom = tag.area
    draw.rectangle((left, top, right - 1, bottom - 1), fill=tag.colour)
    margin = _margin(tag.font.size)
    draw.text((left + margin, top + margin), tag.text, fill=ink_on(tag.colour), font=tag.font)


def _margin(font_size: float) -> int:
    return max(1, round(font_size) // 8)
