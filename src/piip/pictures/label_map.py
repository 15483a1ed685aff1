"""Label maps drawn onto images, with a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from piip.config import Preprocess
from piip.pictures.beside import enlarged, times_for
from piip.pictures.colours import Colour, area_colour
from piip.pictures.lettering import one_line, text_font
from piip.pictures.mosaic import mosaic, stretched
from piip.structures import IGNORED, Batch, Size

Colours = Sequence[Colour | None] | None
"""the data's own, in label order"""
OPACITY = 0.55
STRIP = 1_000_000
"""pixels that are mixed at a time, for which there is a hundred bytes each"""
IGNORED_COLOUR = (0, 0, 0)
LEGEND_ROWS = 24
"""classes that a legend lists at most, the largest ones"""


class Row(NamedTuple):
    """One line of a legend."""

    label: int
    text: str


def draw_labels(image: np.ndarray, labels: np.ndarray, names: Sequence[str], colours: Colours = None) -> np.ndarray:
    """`image` [H, W, 3] uint8 under the colours of `labels` [H, W], and right of it a legend with each class's share.

    The result is as high as the image, or higher where the legend needs it, and wider by the legend. `colours`: the
    data's own, see `colours.area_colour`.
    """
    return with_legend(tinted(image, labels, colours), legend_rows(labels, names), colours)


def draw_labels_of_frame(
    image: np.ndarray, labels: np.ndarray, names: Sequence[str], colours: Colours = None
) -> np.ndarray:
    """As `draw_labels`, for clips: of one size whatever the labels are.

    The legend has room for the longest of `names`, and is as high as the image, with as many classes as fit.
    """
    return with_legend(tinted(image, labels, colours), legend_rows(labels, names), colours, names)


def draw_readable_labels(
    image: np.ndarray, labels: np.ndarray, names: Sequence[str], colours: Colours = None
) -> np.ndarray:
    """As `draw_labels`, on `image` enlarged to at least `beside.READABLE` pixels."""
    times = times_for((image.shape[0], image.shape[1]))
    return draw_labels(enlarged(image, times), labels.repeat(times, axis=0).repeat(times, axis=1), names, colours)


def draw_label_batch(batch: Batch, preprocess: Preprocess, names: Sequence[str], colours: Colours = None) -> np.ndarray:
    """What a segmentor is trained on: the first 16 images of `batch` with their labels, and a legend."""
    seen: list[np.ndarray] = []

    def draw(pixels: np.ndarray, target: Tensor, size: Size) -> np.ndarray:
        height, width = pixels.shape[:2]
        shifted = stretched(target[None] - IGNORED, size, (height, width))[0]  # so that the padding is ignored
        labels = shifted.numpy().astype(np.int64) + IGNORED
        seen.append(labels)
        return tinted(pixels, labels, colours)

    picture = mosaic(batch, preprocess, draw)
    return with_legend(picture, legend_rows(np.concatenate([labels.ravel() for labels in seen]), names), colours)


def tinted(image: np.ndarray, labels: np.ndarray, own: Colours = None) -> np.ndarray:
    """`image` mixed with the colour of each pixel's class; outlines are stronger, ignored pixels darker."""
    colours = np.array([area_colour(label, own) for label in range(max(int(labels.max()), 0) + 1)] + [IGNORED_COLOUR])
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    mixed = np.empty(image.shape, dtype=np.uint8)
    rows = max(1, STRIP // labels.shape[1])
    for top in range(0, len(labels), rows):
        part = slice(top, top + rows)
        strength = np.where(edge[part], 0.9, OPACITY)[..., None]
        layer = colours[labels[part]]  # IGNORED is the last row
        mixed[part] = np.round(image[part] * (1 - strength) + layer * strength)
    return mixed


def shares(labels: np.ndarray) -> dict[int, float]:
    """Share of the pixels of each label that is there (`IGNORED` left out), the largest first."""
    present, counts = np.unique(labels, return_counts=True)
    pairs = [(int(label), count / labels.size) for label, count in zip(present, counts, strict=True)]
    return dict(sorted((pair for pair in pairs if pair[0] != IGNORED), key=lambda pair: -pair[1]))


def legend_rows(labels: np.ndarray, names: Sequence[str]) -> list[Row]:
    """The classes that are there, the largest first."""
    found = list(shares(labels).items())
    rows = [Row(label, _share_of(_name(label, names), share)) for label, share in found[:LEGEND_ROWS]]
    if len(found) > LEGEND_ROWS:
        rows.append(Row(IGNORED, f"and {len(found) - LEGEND_ROWS} more"))
    return rows


def with_legend(
    picture: np.ndarray, rows: Sequence[Row], colours: Colours = None, possible: Sequence[str] = ()
) -> np.ndarray:
    """`picture` with a legend in a white panel at its right.

    With `possible` class names the panel is the same for any of these: wide enough for all, as high as the picture.
    """
    if not rows:
        return picture
    height, width = picture.shape[:2]
    font_size = min(max(round(math.sqrt(height * width) / 40), 11), 120)
    texts = [row.text for row in rows] if not possible else [_share_of(name, 1) for name in possible]
    sized = [(text, text_font(text, font_size)) for text in texts]
    line = max(sum(font.getmetrics()) for _, font in sized) + font_size // 3
    margin = font_size // 2
    panel = max(math.ceil(font.getlength(text)) for text, font in sized) + font_size + 3 * margin
    if possible:
        rows = rows[: (height - 2 * margin) // line]
    fonts = [text_font(row.text, font_size) for row in rows]
    canvas = Image.new("RGB", (width + panel, max(height, line * len(rows) + 2 * margin)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for number, (row, font) in enumerate(zip(rows, fonts, strict=True)):
        top = margin + number * line
        left = width + margin
        if row.label != IGNORED:
            colour = area_colour(row.label, colours)
            draw.rectangle((left, top, left + font_size, top + font_size), fill=colour, outline=(90, 90, 90))
        draw.text((left + font_size + margin, top), row.text, fill=(0, 0, 0), font=font)
    return np.array(canvas)


def _share_of(name: str, share: float) -> str:
    return f"{one_line(name)}  {share:.1%}"


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)
