"""Boxes, masks and labels drawn onto images."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from piip.config import Preprocess
from piip.structures import Batch, Instances, Size

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, right and bottom not included"""

MOSAIC_IMAGES = 16
MOSAIC_SIDE = 1920
"""pixels, at most"""
TILE_SIDE = 320
"""pixels to which small images of a mosaic are enlarged, about, so that labels don't cover them"""
EUROPEAN_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf", "Arial Unicode.ttf")
EAST_ASIAN_FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf")
"""tried in this order, wherever the system keeps its fonts"""


def class_colour(label: int) -> Colour:
    """The colour of a class, the same everywhere; neighbouring labels get hues far apart."""
    hue = (label * 0.618033988749895) % 1.0  # the golden ratio never comes close to a hue it has given before
    value, saturation = ((1.0, 0.9), (0.85, 0.65), (0.7, 1.0))[label // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: np.ndarray,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None = None,
    masks: Tensor | None = None,
    names: Sequence[str] = (),
) -> np.ndarray:
    """A copy of `image` [H, W, 3] uint8 with masks, boxes and labels drawn on it.

    Args:
        image: RGB
        boxes: [N, 4] (x1, y1, x2, y2) in pixels
        labels: [N], 0-based
        scores: [N] 0 to 1, or None for annotated objects; the best are drawn last, on top
        masks: [N, H, W], any type that is true or false per pixel
        names: class names; a label without a name is drawn as its number
    """
    order = torch.arange(len(boxes)) if scores is None else scores.argsort()
    ranks: list[int] = order.tolist()
    colours = [class_colour(label) for label in labels.tolist()]
    canvas = np.array(image, copy=True)
    if masks is not None:
        for i in ranks:
            _tint(canvas, masks[i].cpu().numpy().astype(bool), colours[i])
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    width = _line_width(picture.size)
    corners = [_inside(box, picture.size) for box in boxes.tolist()]
    for i in ranks:
        left, top, right, bottom = corners[i]
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colours[i], width=width)
    tags: list[_Tag] = []
    for i in reversed(ranks):  # the best one chooses its place first and is written last, on top
        texts = _texts(int(labels[i]), None if scores is None else float(scores[i]), names)
        tag = _place_tag(texts, corners[i], picture.size, colours[i], [tag.area for tag in tags])
        if tag is not None:
            tags.append(tag)
    for tag in reversed(tags):
        _write(draw, tag)
    return np.array(picture)


def draw_training_batch(batch: Batch, preprocess: Preprocess, names: Sequence[str] = ()) -> np.ndarray:
    """What a detector is trained on: the first 16 images of `batch` with their objects, [H, W, 3] uint8."""

    def draw(pixels: np.ndarray, target: Instances, size: Size) -> np.ndarray:
        height, width = pixels.shape[:2]
        boxes = target.boxes * torch.tensor([width / size[1], height / size[0]] * 2)
        masks = target.masks
        if masks is not None and len(masks):
            masks = stretched(masks, size, (height, width)) > 0
        return draw_detections(pixels, boxes, target.labels, None, masks, names)

    return mosaic(batch, preprocess, draw)


def mosaic(batch: Batch, preprocess: Preprocess, draw: Callable[[np.ndarray, Any, Size], np.ndarray]) -> np.ndarray:
    """The first 16 images of `batch` side by side, [H, W, 3] uint8.

    Padding stays visible, in the grey or colour that zero stands for after normalising.

    Args:
        batch: on any device.
        preprocess: what normalised it.
        draw: from an image as it will be seen (uint8 [h, w, 3]), its target, and the size (H, W) of the batch's
            images, of which the shown one is an enlargement or reduction, to the image with the target on it.
    """
    count = min(len(batch.images), MOSAIC_IMAGES)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    height, width = batch.images.shape[-2:]
    enlarged = max(1, round(TILE_SIDE / max(height, width)))  # whole pixels, so that they stay what they are
    scale = min(enlarged, MOSAIC_SIDE / max(rows * height, columns * width))
    tile = max(1, round(height * scale)), max(1, round(width * scale))
    pictures = np.full((rows * tile[0], columns * tile[1], 3), 255, dtype=np.uint8)
    for i in range(count):
        pixels = _shown(batch.images[i], preprocess, tile)
        target = batch.targets[i]
        picture = draw(pixels, target.to("cpu") if hasattr(target, "to") else target, (height, width))
        top, left = i // columns * tile[0], i % columns * tile[1]
        pictures[top : top + tile[0], left : left + tile[1]] = picture
    return pictures


def stretched(maps: Tensor, size: Size, new_size: Size) -> Tensor:
    """Maps [N, h, w] that may end where an image's padding to `size` begins, as [N, *new_size] (nearest, zeros)."""
    maps = F.pad(maps, (0, size[1] - maps.shape[2], 0, size[0] - maps.shape[1]))
    return F.interpolate(maps[None].float(), new_size, mode="nearest-exact")[0]


def _shown(image: Tensor, preprocess: Preprocess, size: Size) -> np.ndarray:
    """The network's input [3, H, W] as an image uint8 [*size, 3]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    pixels = (image.detach().cpu().float() * std + mean).round().clamp(0, 255)
    if size[0] < image.shape[-2]:
        pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0].round().clamp(0, 255)
    else:
        pixels = F.interpolate(pixels[None], size, mode="nearest-exact")[0]
    return pixels.byte().permute(1, 2, 0).numpy()


def _tint(canvas: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Blend `colour` into `canvas` where the mask is, in place, with a stronger outline."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    area = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    part, inside = canvas[area], mask[area]
    around = np.pad(inside, 1)
    edge = inside & ~(around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:])
    for where, strength in ((inside & ~edge, 0.4), (edge, 0.85)):
        part[where] = np.round(part[where] * (1 - strength) + np.array(colour) * strength).astype(np.uint8)


def _inside(box: list[float], size: tuple[int, int]) -> Rectangle:
    """The pixels of a box: at least one, none outside the image."""
    left, top, right, bottom = (value if math.isfinite(value) else 0.0 for value in box)
    width, height = size
    x = min(max(math.floor(left), 0), width - 1)
    y = min(max(math.floor(top), 0), height - 1)
    return x, y, min(max(math.ceil(right), x + 1), width), min(max(math.ceil(bottom), y + 1), height)


def _line_width(size: tuple[int, int]) -> int:
    return max(1, round(math.sqrt(size[0] * size[1]) / 190))


class _Tag(NamedTuple):
    """A label with its place."""

    text: str
    area: Rectangle
    colour: Colour
    font: Any


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


def _texts(label: int, score: float | None, names: Sequence[str]) -> list[str]:
    """What to write, from the full text to what a small image has room for."""
    name = " ".join(names[label].split()) if 0 <= label < len(names) else str(label)
    full = [name] if score is None else [f"{name} {score:.2f}", name]
    return full + [f"{name[:n]}." for n in (16, 8, 4) if len(name) > n + 1]


def _place_tag(
    texts: list[str], box: Rectangle, size: tuple[int, int], colour: Colour, taken: list[Rectangle]
) -> _Tag | None:
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
            area = next((place for place in places if not any(_overlap(place, other) for other in taken)), places[0])
            return _Tag(text, area, colour, font)
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


def _write(draw: ImageDraw.ImageDraw, tag: _Tag) -> None:
    left, top, right, bottom = tag.area
    draw.rectangle((left, top, right - 1, bottom - 1), fill=tag.colour)
    red, green, blue = tag.colour
    ink = (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else (255, 255, 255)
    margin = _margin(tag.font.size)
    draw.text((left + margin, top + margin), tag.text, fill=ink, font=tag.font)


def _margin(font_size: float) -> int:
    return max(1, round(font_size) // 8)
