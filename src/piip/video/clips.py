"""Where frames come from: a file, a camera, a folder of frames."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from piip.data.decode import decode_image
from piip.data.image_files import MAX_PIXELS, ImageError
from piip.prediction.listing import paths_of
from piip.video.library import pyav

ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
MISSING = 0.02
"""share of the frames a file says it has that may not be there: some files count those before their beginning"""


class Frame(NamedTuple):
    """One picture of a clip."""

    number: int
    """its place in the clip, from 0"""
    stamp: int
    """when it is shown, in the clip's time base; each is later than the one before"""
    seconds: float
    """the same"""
    pixels: np.ndarray
    """[H, W, 3] uint8 RGB, upright"""


class Clip(Protocol):
    """Frames with time stamps."""

    name: str
    """of files made from it"""
    count: int | None
    """of frames, as far as that is known"""
    time_base: Fraction
    """seconds of a step of time stamps"""
    damage: str | None
    """after the frames: what ended them early"""

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every so many frames, one after the other."""


def is_clip(source: object) -> bool:
    """Whether a source of images means a clip: a file of a video's ending, or the number of a camera."""
    if isinstance(source, bool):
        return False
    if isinstance(source, int):
        return True
    if not isinstance(source, str | Path):
        return False
    text = str(source)
    return text.lower().endswith(ENDINGS) or (text.isdecimal() and not Path(text).exists())


def opened_clip(source: str | Path | int) -> Clip:
    """The clip that `is_clip` sees.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an address on the network, or no such camera.
        ImageError: a file without a video in it.
    """
    text = str(source)
    if "://" in text:
        raise ValueError(f"{text}: nothing is fetched from the network; save the clip, or read its frames in your own "
                         "program and give them to `predict`")  # fmt: skip
    if text.isdecimal() and not Path(text).exists():
        return Camera(int(text))
    return VideoFile(Path(text).expanduser())


class VideoFile:
    """A file with a video in it."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self.path, self.name = path, path.stem
        self.damage: str | None = None
        with _container(path) as container:
            stream = _video(container, str(path))
            self.count: int | None = stream.frames or None
            self.time_base = Fraction(stream.time_base)
            self.rate = Fraction(stream.average_rate or 25)

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every so many frames; where the file is broken they end, and `damage` says where."""
        self.damage = None
        number, seconds = 0, 0.0
        broken: list[str] = []
        with _container(self.path) as container:
            stream = _video(container, str(self.path))
            stream.thread_type = "SLICE"  # with several frames at a time more of them are lost with a broken one
            for number, frame in _numbered(_decoded(container, stream, broken), self.time_base, self.rate, every):
                if frame is not None:
                    seconds = frame.seconds
                    yield frame
                number += 1
        missing = (self.count or 0) - number
        if broken:
            self.damage = f"broken at frame {number}, after {seconds:.2f} s: {broken[0]}"
        elif missing > 1 and missing > MISSING * (self.count or 0):
            self.damage = f"ends after frame {number - 1}, {seconds:.2f} s, and should have {self.count} frames"


class Camera:
    """A camera by its number; its frames do not end before they are not asked for any more."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, f"camera{number}"
        self.count: int | None = None
        self.damage: str | None = None
        self.time_base = Fraction(1, 90000)
        with self._opened() as container:
            _video(container, self.name)

    def _opened(self) -> Any:
        av = pyav()
        place, kind = (f"/dev/video{self.number}", "v4l2")
        if sys.platform == "darwin":
            place, kind = str(self.number), "avfoundation"
        if sys.platform == "win32":
            raise ValueError("cameras are not opened by number on Windows; read their frames with another library, "
                             "such as OpenCV, and give them to `predict(frames, stream=True, bgr=True)`")  # fmt: skip
        try:
            return av.open(place, format=kind)
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"there is no camera {self.number} here ({place}: {error}); cameras are numbered from 0") \
                from None  # fmt: skip

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every so many frames, from the first with the time 0."""
        begun: int | None = None
        self.damage = None
        broken: list[str] = []
        number = -1
        with self._opened() as container:
            stream = _video(container, self.name)
            for number, frame in enumerate(_decoded(container, stream, broken)):
                seconds = float(frame.time or 0)
                stamp = round(seconds / self.time_base)
                begun = stamp if begun is None else begun
                if number % every == 0:
                    pixels = frame.to_ndarray(format="rgb24")
                    yield Frame(number, stamp - begun, float((stamp - begun) * self.time_base), pixels)
        if broken:
            self.damage = f"ended after {number + 1} frames: {broken[0]}"


class FrameFolder:
    """A folder of images, the frames of a clip in the order of their names, in which numbers count as such.

    Args:
        path: the folder.
        rate: frames per second.

    Raises:
        FileNotFoundError: there is no image.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.files = sorted(paths_of(path), key=_place_of)
        self.name = path.resolve().name
        self.damage: str | None = None
        self.count: int | None = len(self.files)
        if rate < 1:
            self.time_base = (1 / Fraction(rate)).limit_denominator(1001)
        else:
            self.time_base = 1 / Fraction(rate).limit_denominator(1001)

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every so many files; where one is broken they end, and `damage` says where."""
        self.damage = None
        for number in range(0, len(self.files), every):
            try:
                pixels = decode_image(self.files[number])
            except ImageError as error:
                self.damage = f"broken at frame {number}: {error}"
                return
            yield Frame(number, number, float(number * self.time_base), pixels)


def _place_of(file: Path) -> tuple[list[str | int], str]:
    """What frames are sorted by: 2.png is before 10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)], file.name


def _container(path: Path) -> Any:
    av = pyav()
    try:
        return av.open(str(path.absolute()))  # "a:b.mp4" alone would be an address to it
    except av.FFmpegError as error:
        raise ImageError(f"{path}: no clip that can be read ({error.strerror or error})") from None


def _video(container: Any, name: str) -> Any:
    """The container's first video."""
    if not container.streams.video:
        raise ImageError(f"{name}: has no video in it")
    stream = container.streams.video[0]
    if stream.width * stream.height > MAX_PIXELS:
        raise ImageError(f"{name}: frames of {stream.width} x {stream.height} pixels; at most {MAX_PIXELS} are read")
    return stream


def _decoded(container: Any, stream: Any, broken: list[str]) -> Iterator[Any]:
    """The frames up to the first that is broken; then what is wrong is in `broken`."""
    av = pyav()
    packets = container.demux(stream)
    while not broken:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.FFmpegError as error:
            broken.append(error.strerror or str(error))
            frames = _held(stream)
        yield from frames


def _held(stream: Any) -> list[Any]:
    """The frames before a broken one that a decoder still holds, as their order differs from the file's."""
    try:
        return list(stream.codec_context.decode(None))
    except pyav().FFmpegError:
        return []


def _numbered(frames: Iterator[Any], base: Fraction, rate: Fraction, every: int) -> Iterator[tuple[int, Frame | None]]:
    """Each frame's number, and its picture where it is asked for."""
    last = None
    for number, frame in enumerate(frames):
        stamp = round(number / rate / base) if frame.pts is None else frame.pts
        stamp = stamp if last is None else max(stamp, last + 1)
        last = stamp
        if number % every:
            yield number, None
            continue
        pixels = frame.to_ndarray(format="rgb24")
        pixels = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
        yield number, Frame(number, stamp, float(stamp * base), pixels)
