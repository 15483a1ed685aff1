"""The image that a result is of: its size, where it comes from, and its pixels when somebody asks for them.

Of a file its path is kept, not its pixels, so that the results of many photos, or of a very large one, take no more
memory than what was found in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from piip.data.decode import decode_image
from piip.data.file_rows import FileRows
from piip.data.image_files import ImageError
from piip.data.surround import Photo
from piip.data.windows import FileImage, read_large
from piip.structures import Size

Stamp = tuple[int, int]
"""a file's length in bytes and time stamp in nanoseconds"""


class Picture:
    """An upright image.

    Args:
        size: (height, width).
        source: the file, or the content of one, that the pixels are read from; None: there are only `pixels`.
        pixels: [H, W, 3] uint8 RGB, while they are at hand.
        max_pixels: see `prediction.options.Options`.
        stamp: the file's when it was read, which tells whether it still is the same.
    """

    def __init__(
        self,
        size: Size,
        source: Path | bytes | None = None,
        pixels: np.ndarray | None = None,
        max_pixels: int | None = None,
        stamp: Stamp | None = None,
    ) -> None:
        self.size: Size = size
        self.source = source
        self.pixels = pixels
        self.max_pixels = max_pixels
        self.stamp = stamp

    @classmethod
    def of(cls, image: np.ndarray | Picture) -> Picture:
        """The picture of an array [H, W, 3]; a picture is itself."""
        return image if isinstance(image, Picture) else cls((image.shape[0], image.shape[1]), pixels=image)

    def read(self) -> np.ndarray:
        """All pixels, [H, W, 3] uint8 RGB: those at hand, or decoded now.

        Raises:
            ImageError: the file is not there any more, or is another one by now.
        """
        if self.pixels is not None:
            return self.pixels
        if self.source is None:
            raise ImageError("the pixels of this image were not kept")
        if isinstance(self.source, Path) and self.stamp is not None and stamp_of(self.source) != self.stamp:
            raise ImageError(f"{self.source}: {self._change()} since this result was made, which keeps the file's name "
                             "and not its pixels; draw sooner, or predict on the image's bytes or array")  # fmt: skip
        return file_pixels(self.source, self.max_pixels)

    def let_go(self) -> None:
        """Forget the pixels, if they can be read again."""
        if self.source is not None:
            self.pixels = None

    def _change(self) -> str:
        return "this file has changed" if isinstance(self.source, Path) and self.source.exists() else "the file is gone"


def file_pixels(source: Path | bytes, max_pixels: int | None = None) -> np.ndarray:
    """Pixels of an image file or of its content, uint8 [H, W, 3] RGB, upright; ImageError for what is none.

    With `max_pixels`, a file that is too large to be decoded, or of other pixels, is read by `data.windows`.
    """
    try:
        return decode_image(source)
    except ImageError as error:
        if max_pixels is None or not isinstance(source, Path):
            raise
        return by_windows(source, max_pixels, error)


def by_windows(path: Path, max_pixels: int, before: ImageError) -> np.ndarray:
    """A file that could not be decoded; the same error where that is not for it."""
    try:
        pixels = read_large(path, max_pixels)
    except ImageError as error:
        raise ImageError(f"{before}; by windows: {error}") from error
    if pixels is None:
        raise before
    return pixels


@contextmanager
def rows_of(path: Path, max_pixels: int, before: ImageError) -> Iterator[Photo]:
    """The same, [3, H, W], of which rows are read when they are asked for; one that has to be turned is read whole."""
    try:
        file = FileImage(path, max_pixels)
    except ImageError as error:
        raise ImageError(f"{before}; by windows: {error}") from error
    with file:
        if file.is_for_pillow:
            raise before
        if file.orientation == 1:
            yield FileRows(file)
        else:
            yield torch.from_numpy(by_windows(path, max_pixels, before)).permute(2, 0, 1)


def stamp_of(path: Path) -> Stamp | None:
    """None where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
