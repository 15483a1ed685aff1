"""The tags of drawn objects: what is written on them, and where they hide least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import ImageDraw

from piip.pictures.colours import Colour, ink_on
from piip.pictures.lettering import one_line, text_font

Rectangle = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, right and bottom not included"""


class Tag(NamedTuple):
    """A label with its place."""

    text: str
    area: Rectangle
    colour: Colour
    font: Any


def texts_of(label: int, score: float | None, names: Sequence[str]) -> list[str]:
    """What to write, from the full text to what a small image has room for."""
    name = one_line(names[label]) if 0 <= label < len(names) else str(label)
    full = [name] if score is None else [f"{name} {score:.2f}", name]
    return full + [f"{name[:n]}." for n in (16, 8, 4) if len(name) > n + 1]


def place(
    texts: list[str], box: Rectangle, size: tuple[int, int], colour: Colour, taken: list[Rectangle]
) -> Tag | None:
    """The first of `texts` that fits into the image, where it hides no earlier label if possible.

    None in an image so small that a label would hide it.
    """
    width, height = size
    font_size = min(max(round(math.sqrt(width * height) / 45), 11), 120)
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
