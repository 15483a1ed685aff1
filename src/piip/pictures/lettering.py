"""Text in pictures: a font that has its letters, and as much of it as there is room for."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

from PIL import ImageFont

EUROPEAN_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf", "Arial Unicode.ttf")
EAST_ASIAN_FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf")
"""tried in this order, wherever the system keeps its fonts"""


def text_font(text: str, size: int) -> Any:
    """Pillow's own font, which looks the same everywhere but has no letters beyond ASCII; else the system's."""
    last = max(map(ord, text), default=0)
    names = () if last < 128 else EUROPEAN_FONTS if last < 0x2E80 else EAST_ASIAN_FONTS + EUROPEAN_FONTS
    return _load_font(names, size)


@lru_cache(maxsize=64)
def _load_font(names: tuple[str, ...], size: int) -> Any:
    for name in names:
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def fitted(text: str, font_size: int, room: float) -> str:
    """`text` on one line, shortened to `room` pixels."""
    text = one_line(text)
    font = text_font(text, font_size)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}.") > room:
        text = text[:-1]
    return f"{text}."


def one_line(text: str) -> str:
    """`text` without line breaks and with single spaces."""
    return " ".join(text.split())
