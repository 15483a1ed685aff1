"""An annotated clip, written frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from piip.files import atomic_write
from piip.video.library import pyav

CODECS = ("libx264", "libopenh264", "mpeg4")
"""the first that there is: players know them all"""
LARGEST_STEP = 65535
"""steps of a second that MPEG-4 can count"""


class DrawnClip:
    """Takes pictures with their time stamps; all get the size of the first, made even."""

    def __init__(self, container: Any, time_base: Fraction) -> None:
        self.container, self.time_base = container, time_base
        self._stream: Any = None

    def add(self, pixels: np.ndarray, stamp: int) -> None:
        """One picture, [H, W, 3] uint8 RGB, later than the one before."""
        if self._stream is None:
            self._stream = self._begun(pixels.shape[0], pixels.shape[1])
        height, width = self._stream.height, self._stream.width
        if abs(pixels.shape[0] - height) > 1 or abs(pixels.shape[1] - width) > 1:
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height)))
        room = ((0, max(0, height - pixels.shape[0])), (0, max(0, width - pixels.shape[1])), (0, 0))
        pixels = np.ascontiguousarray(np.pad(pixels, room, mode="edge")[:height, :width])
        frame = pyav().VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = stamp, self.time_base
        self.container.mux(self._stream.encode(frame))

    def end(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            self.container.mux(self._stream.encode(None))

    def _begun(self, height: int, width: int) -> Any:
        av = pyav()
        codec = next(name for name in CODECS if name in av.codecs_available)
        stream = self.container.add_stream(codec, rate=30)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        fine = codec != "mpeg4" or self.time_base.denominator <= LARGEST_STEP
        stream.codec_context.time_base = self.time_base if fine else Fraction(1, 30000)
        stream.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {}
        return stream


@contextmanager
def drawn_clip(path: Path, time_base: Fraction) -> Iterator[DrawnClip]:
    """A clip that is at `path` when it is whole: whatever ends the block, but an error that is not a stop."""
    with atomic_write(path) as temporary, pyav().open(str(temporary.absolute()), "w", format="mp4") as container:
        clip = DrawnClip(container, time_base)
        yield clip
        clip.end()
