"""CVAT for video 1.1: tracks of objects through the frames of one video, whose frames are there as image files.

    annotations.xml, images/frame_000000.png, images/frame_000001.png, ...

A box between two keyframes is where CVAT shows it: on the straight line from one to the other. From the last keyframe
on it stays, until one says that it is `outside`. Outlines and masks count at their keyframes; in between, where they
are not known, the box around both is a crowd region, which is neither learnt nor counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from piip.data.formats.records import Records
from piip.data.formats.shapes import numbers
from piip.data.layout import is_image
from piip.data.report import DataError
from piip.data.xml_files import Element

MOST_FRAMES = 1_000_000
SIDES = ("xtl", "ytl", "xbr", "ybr")
Draw = Callable[[dict[str, str], int, Records], None]
"""makes an object of a shape's attributes"""


class Knot(NamedTuple):
    """A shape of a track in one frame, as it is written."""

    frame: int
    tag: str
    given: dict[str, str]
    outside: bool


def read_tracks(
    file: Path, images: Path, meta: Element | None, tracks: list[Element], records: Records, shapes: dict[str, Draw]
) -> None:
    """The frames with what is in them, as images of `records`.

    Args:
        file: for messages.
        images: the folder of the frames.
        meta: the element that names the size and the number of frames.
        tracks: of one video.
        records: take the images and objects.
        shapes: what makes objects, by the names of elements.

    Raises:
        DataError: the frames are not there, or the tracks are of several videos.
    """
    if len({track.attributes.get("task_id") for track in tracks}) > 1:
        raise DataError(f"{file}: holds the tracks of several videos, whose frames have the same numbers; export each "
                        "task by itself")  # fmt: skip
    read = [(track.attributes.get("label"), _knots(track, records, shapes)) for track in tracks]
    last = max((knot.frame for _, knots in read for knot in knots), default=0)
    names = _frames(file, images, meta, last)
    size = meta.first("original_size") if meta is not None else None
    sides = (size.value("width"), size.value("height")) if size is not None else (None, None)
    ids = {frame: records.image(name, *sides) for frame, name in names.items()}
    missing: set[int] = set()
    for label, knots in read:
        for frame, tag, given, crowd in _along(knots, max(ids)):
            if frame not in ids:
                missing.add(frame)
            elif crowd:
                records.box(ids[frame], label, [given[side] for side in SIDES], crowd=True)
            else:
                shapes[tag]({**given, "label": label or ""}, ids[frame], records)
    for frame in sorted(missing):
        records.report.add("left out", "frame without an image file", f"frame {frame}")


def _knots(track: Element, records: Records, shapes: dict[str, Draw]) -> list[Knot]:
    """The shapes of a track by their frames; what is no object is counted."""
    knots: dict[int, Knot] = {}
    for shape in track.children:
        frame = numbers([shape.attributes.get("frame")])
        if shape.tag not in shapes or frame is None or not 0 <= frame[0] < MOST_FRAMES:
            records.report.add("left out", "shape of a track that is no box, polygon, ellipse or mask of a frame",
                               f"track {track.attributes.get('id')}: {shape.tag}")  # fmt: skip
            continue
        outside = shape.attributes.get("outside") == "1"
        knots[int(frame[0])] = Knot(int(frame[0]), shape.tag, shape.attributes, outside)
    return [knots[frame] for frame in sorted(knots)]


def _along(knots: list[Knot], last: int) -> Iterator[tuple[int, str, dict[str, str], bool]]:
    """Frame, element, attributes, and whether it is a crowd region, wherever a track can be seen."""
    for knot, following in zip(knots, [*knots[1:], None], strict=True):
        if knot.outside:
            continue
        yield knot.frame, knot.tag, knot.given, False
        end = last + 1 if following is None else following.frame
        for frame in range(knot.frame + 1, end):
            if following is None:
                yield frame, knot.tag, knot.given, False
                continue
            share = (frame - knot.frame) / (following.frame - knot.frame)
            between = _between(knot.given, following.given, share) if knot.tag == following.tag == "box" else None
            if between is not None:
                yield frame, "box", between, False
            elif (around := _around(knot, following)) is not None:
                yield frame, "box", around, True


def _between(one: dict[str, str], other: dict[str, str], share: float) -> dict[str, str] | None:
    """A box on its way; its turn takes the shorter side of the circle."""
    first, second = (numbers(given.get(side) for side in SIDES) for given in (one, other))
    turns = numbers([one.get("rotation", "0"), other.get("rotation", "0")])
    if first is None or second is None or turns is None:
        return None
    way = (turns[1] - turns[0] + 180) % 360 - 180
    moved = {name: str(a + share * (b - a)) for name, a, b in zip(SIDES, first, second, strict=True)}
    return moved | {"rotation": str((turns[0] + share * way) % 360)}


def _around(one: Knot, other: Knot) -> dict[str, str] | None:
    """The sides of the box around two shapes."""
    found = [_extent(knot.given) for knot in (one, other)]
    boxes = [box for box in found if box is not None]
    if not boxes:
        return None
    low, high = ([box[i] for box in boxes] for i in (slice(0, 2), slice(2, 4)))
    sides = (*map(min, zip(*low, strict=True)), *map(max, zip(*high, strict=True)))
    return {name: str(side) for name, side in zip(SIDES, sides, strict=True)}


def _extent(given: dict[str, str]) -> tuple[float, float, float, float] | None:
    """(x1, y1, x2, y2) of whatever shape."""
    if "points" in given:
        sides = numbers(side for point in given["points"].split(";") for side in point.split(","))
        if sides is None or len(sides) < 2:
            return None
        return min(sides[::2]), min(sides[1::2]), max(sides[::2]), max(sides[1::2])
    for names in (SIDES, ("left", "top", "width", "height"), ("cx", "cy", "rx", "ry")):
        found = numbers(given.get(name) for name in names)
        if found is not None:
            a, b, c, d = found
            if names[0] == "left":
                return a, b, a + c, b + d
            return (a - c, b - d, a + c, b + d) if names[0] == "cx" else (a, b, c, d)
    return None


def _frames(file: Path, images: Path, meta: Element | None, last: int) -> dict[int, str]:
    """The file of each frame: as many files as frames are these in the order of their numbers; else a file's number is
    its frame's."""  # fmt: skip
    files = [path.name for path in images.iterdir() if path.is_file() and is_image(path.name)]
    numbered = sorted((int(found[1]), name) for name in files if (found := re.search(r"(\d{1,9})\.\w+$", name)))
    told = numbers([meta.value("size")]) if meta is not None else None
    count = int(told[0]) if told is not None else None
    if count and count == len(files) == len(numbered):
        return {frame: name for frame, (_, name) in enumerate(numbered)}
    frames = {number: name for number, name in numbered if number <= (last if count is None else count - 1)}
    if not frames or len({number for number, _ in numbered}) < len(numbered):
        what = "several files have one number" if frames else f"its frames are not in {images}"
        raise DataError(f'{file}: holds tracks of a video ("CVAT for video"), and {what}. Export the task with '
                        "its images, or write the frames there as images/frame_000000.png and so on, numbered from 0 "
                        "(ffmpeg -i VIDEO -start_number 0 images/frame_%06d.png), or "
                        'export "CVAT for images 1.1"')  # fmt: skip
    return frames
