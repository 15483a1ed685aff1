"""Text in pictures: a font that has its letters, and as much of it as there is room for."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

from PIL import ImageFont

EUROPEAN_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf", "Arial Unicode.ttf")
EAST_ASIAN_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "SourceHanSansSC-Regular.otf",
    "msyh.ttc", "simhei.ttf", "meiryo.ttc", "malgun.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "wqy-microhei.ttc",
    "wqy-zenhei.ttc", "DroidSansFallback.ttf", "unifont.ttf", "Arial Unicode.ttf",
)  # fmt: skip
"""tried in this order, wherever the system keeps its fonts; the first that has all letters of a text is taken"""
ANY_SIZE = 16
"""pixels, for questions whose answer does not depend on it"""
NO_LETTER = "\U0010fffe"
"""what no font has, and draws as it draws all that it lacks"""


def text_font(text: str, size: int) -> Any:
    """Pillow's own font, which looks the same everywhere but has no letters beyond ASCII; else the system's."""
    return _load_font(_font_of(text), size)


def _font_of(text: str) -> str | None:
    """The name of the font with all letters of a text, or the most likely one; None for Pillow's."""
    last = max(map(ord, text), default=0)
    names = () if last < 128 else EUROPEAN_FONTS if last < 0x2E80 else EAST_ASIAN_FONTS + EUROPEAN_FONTS
    there = [name for name in names if _load_font(name, ANY_SIZE) is not None]
    whole = (name for name in there if all(_has(name, letter) for letter in text))
    return next(whole, there[0] if there else None)


@lru_cache(maxsize=256)
def _load_font(name: str | None, size: int) -> Any:
    """The system's font of that name, None where there is none; for None Pillow's own."""
    if name is None:
        return ImageFont.load_default(size)
    with suppress(OSError):
        return ImageFont.truetype(name, size)
    return None


@lru_cache(maxsize=4096)
def _has(name: str | None, letter: str) -> bool:
    """Whether a font draws a letter, and not a box in its place."""
    font = _load_font(name, ANY_SIZE)
    return bool(letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask(NO_LETTER)))


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
    """`text` without line breaks and with single spaces; what no font here has is written out, as in "\\u732b"."""
    text = " ".join(text.split())
    if text.isascii():
        return text
    font = _font_of(text)
    return "".join(letter if _has(font, letter) else written_out(letter) for letter in text)


def written_out(letter: str) -> str:
    """A letter as Python writes it in ASCII.

    >>> written_out("猫")
    '\\\\u732b'
    """
    return letter.encode("unicode_escape").decode("ascii")
