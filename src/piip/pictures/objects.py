"""Boxes, masks and their tags drawn onto images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from piip.config import Preprocess
from piip.data.object_masks import Crop, Masks
from piip.pictures.beside import enlarged, times_for, titled
from piip.pictures.colours import Colour, class_colour
from piip.pictures.mosaic import mosaic, stretched
from piip.pictures.tags import MANY, Rectangle, Tag, font_size_for, place, place_among, texts_of, write
from piip.structures import Batch, Instances, Size

TINT = 0.25
"""of a mask's inside, so that an orange stays orange under the colour of its class"""
FRAMES = 15
"""side of a usual object over the width of its frame, where there are many"""


def draw_detections(
    image: np.ndarray,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None = None,
    masks: Tensor | Masks | None = None,
    names: Sequence[str] = (),
) -> np.ndarray:
    """A copy of `image` [H, W, 3] uint8 with masks, boxes and labels drawn on it.

    Args:
        image: RGB
        boxes: [N, 4] (x1, y1, x2, y2) in pixels
        labels: [N], 0-based
        scores: [N] 0 to 1, or None for annotated objects; the best are drawn last, on top
        masks: [N, H, W], any type that is true or false per pixel, or run lengths
        names: class names; a label without a name is drawn as its number
    """
    order = torch.arange(len(boxes)) if scores is None else scores.argsort()
    ranks: list[int] = order.tolist()
    colours = [class_colour(label) for label in labels.tolist()]
    canvas = np.array(image, copy=True)
    if masks is not None:
        kept = masks if isinstance(masks, Masks) else Masks.of(masks)
        for i, crop in zip(ranks, kept[ranks].crops(), strict=True):
            _tint(canvas, crop, colours[i])
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    corners = [_inside(box, picture.size) for box in boxes.tolist()]
    rectangles = np.array(corners, dtype=np.int64).reshape(-1, 4)
    width = _line_width(picture.size, rectangles)
    for i in ranks:
        left, top, right, bottom = corners[i]
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colours[i], width=width)
    tags: list[Tag] = []
    font_size = font_size_for(picture.size, rectangles)
    for i in reversed(ranks):  # the best one chooses its place first and is written last, on top
        texts = texts_of(int(labels[i]), None if scores is None else float(scores[i]), names)
        where = (texts, corners[i], picture.size, colours[i], [tag.area for tag in tags])
        if len(corners) > MANY:
            tag = place_among(*where, rectangles, font_size)
        else:
            tag = place(*where, font_size)
        if tag is not None:
            tags.append(tag)
    for tag in reversed(tags):
        write(draw, tag)
    return np.array(picture)


def draw_readable(
    image: np.ndarray,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None = None,
    masks: Masks | None = None,
    names: Sequence[str] = (),
) -> np.ndarray:
    """As `draw_detections`, on `image` enlarged to at least `beside.READABLE` pixels; says where there is nothing."""
    times = times_for((image.shape[0], image.shape[1]))
    canvas = enlarged(image, times)
    if not len(boxes):
        return titled(canvas, "nothing found" if scores is not None else "nothing annotated")
    if masks is not None and times > 1:
        size = (masks.size[0] * times, masks.size[1] * times)
        crops = (
            Crop(crop.pixels.repeat(times, axis=0).repeat(times, axis=1), crop.top * times, crop.left * times)
            for crop in masks.crops()
        )
        masks = Masks.of_crops(crops, size)
    return draw_detections(canvas, boxes * times, labels, scores, masks, names)


def draw_object_batch(batch: Batch, preprocess: Preprocess, names: Sequence[str] = ()) -> np.ndarray:
    """What a detector is trained on: the first 16 images of `batch` with their objects, [H, W, 3] uint8."""

    def draw(pixels: np.ndarray, target: Instances, size: Size) -> np.ndarray:
        height, width = pixels.shape[:2]
        boxes = target.boxes * torch.tensor([width / size[1], height / size[0]] * 2)
        masks = target.masks
        if masks is not None and len(masks):
            masks = stretched(masks, size, (height, width)) > 0
        return draw_detections(pixels, boxes, target.labels, None, masks, names)

    return mosaic(batch, preprocess, draw)


def _tint(canvas: np.ndarray, crop: Crop, colour: Colour) -> None:
    """Blend `colour` into `canvas` where the mask is, in place, with a stronger outline."""
    inside, top, left = crop
    height, width = inside.shape
    part = canvas[top : top + height, left : left + width]
    around = np.pad(inside, 1)
    edge = inside & ~(around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:])
    for where, strength in ((inside & ~edge, TINT), (edge, 0.85)):
        part[where] = np.round(part[where] * (1 - strength) + np.array(colour) * strength).astype(np.uint8)


def _inside(box: list[float], size: tuple[int, int]) -> Rectangle:
    """The pixels of a box: at least one, none outside the image."""
    left, top, right, bottom = (value if math.isfinite(value) else 0.0 for value in box)
    width, height = size
    x = min(max(math.floor(left), 0), width - 1)
    y = min(max(math.floor(top), 0), height - 1)
    return x, y, min(max(math.ceil(right), x + 1), width), min(max(math.ceil(bottom), y + 1), height)


def _line_width(size: tuple[int, int], boxes: np.ndarray) -> int:
    """Of the frames: a part of the picture's side, but thin around many small objects."""
    usual = max(1, round(math.sqrt(size[0] * size[1]) / 190))
    if len(boxes) <= MANY:
        return usual
    side = float(np.median((boxes[:, 2:] - boxes[:, :2]).min(axis=1)))
    return min(usual, max(1, round(side / FRAMES)))
