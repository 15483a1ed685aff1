"""One colour for each class, the same in every picture."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

Colour = tuple[int, int, int]
"""red, green, blue, 0 to 255"""
CHROMA = 0.12
"""how far from grey the colours of areas are; 0.3 is as far as any screen goes"""
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (225, 225, 225)


def class_colour(label: int) -> Colour:
    """The colour of a class, the same everywhere; neighbouring labels get hues far apart."""
    hue = (label * 0.618033988749895) % 1.0  # the golden ratio never comes close to a hue it has given before
    value, saturation = ((1.0, 0.9), (0.85, 0.65), (0.7, 1.0))[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def area_colour(label: int, own: Sequence[Colour | None] | None = None) -> Colour:
    """The colour of a class that covers areas: the data's `own` where it names one, else a calm one.

    As strong in every hue as in the others (in OKLab), so that no class shouts; in three lightnesses. The step from hue
    to hue is the one of several tried whose first 11, 20 and 40 colours are the least alike.
    """
    if own is not None and label < len(own) and (colour := own[label]) is not None:
        return colour
    lightness = (0.72, 0.58, 0.84)[label % 3]
    angle = 2 * math.pi * (0.08 + label * (math.sqrt(5) - 2))
    return _from_oklab(lightness, CHROMA * math.cos(angle), CHROMA * math.sin(angle))


def _from_oklab(lightness: float, a: float, b: float) -> Colour:
    """The nearest colour that a screen has (B. Ottosson's OKLab: lightness, green to red, blue to yellow)."""
    cones = (
        lightness + 0.3963377774 * a + 0.2158037573 * b,
        lightness - 0.1055613458 * a - 0.0638541728 * b,
        lightness - 0.0894841775 * a - 1.2914855480 * b,
    )
    long, middle, short = (value**3 for value in cones)
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    red, green, blue = (round(255 * _encoded(min(max(value, 0.0), 1.0))) for value in linear)
    return red, green, blue


def _encoded(light: float) -> float:
    """sRGB of an amount of light, both 0 to 1."""
    return float(12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = colour
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else WHITE
