"""One colour for each class, the same in every picture."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]
"""red, green, blue, 0 to 255"""
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (225, 225, 225)


def class_colour(label: int) -> Colour:
    """The colour of a class, the same everywhere; neighbouring labels get hues far apart."""
    hue = (label * 0.618033988749895) % 1.0  # the golden ratio never comes close to a hue it has given before
    value, saturation = ((1.0, 0.9), (0.85, 0.65), (0.7, 1.0))[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = colour
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else WHITE
