"""Image files before any pixel is decoded: which are opened, how large they may be, what their headers say.

Whatever is wrong with a file is an `ImageError`, which names it.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ExifTags, Image, PngImagePlugin

from piip.data.plain_headers import ENOUGH, JPEG_MARK, plain_size

if TYPE_CHECKING:
    from piip.structures import Size

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""what is opened, by content and not by file name; JPEG includes MPO, which phones write as .jpg"""
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif",
)  # fmt: skip
"""lower-case file endings of these formats, for listing a folder"""
TOO_MUCH_TEXT = ("Decompressed data too large", "Too much memory used in text chunks")
"""how Pillow's errors about metadata begin"""
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_PIXELS = 89_000_000
"""width x height; just below where Pillow itself begins to warn of decompression bombs"""
MAX_SIDE = 30_000
LARGEST_TEXT = 32 << 20
"""bytes that a text or colour profile of a PNG may take when unpacked; all texts together 64 MiB, as Pillow has it"""
LARGEST_FILE = 1 << 31
"""bytes"""
TURNING = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width"""

_further_headers: list[Callable[[Path, ImageError], tuple[Size, int]]] = []

# Pillow's own limit of 1 MiB refuses what image editors write. It knows no other way to set it than for the process.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, LARGEST_TEXT)


class ImageError(ValueError):
    """An image that cannot be read; the message names it and says why."""


def read_header(path: str | Path) -> tuple[Size, int]:
    """(height, width) as stored and the EXIF orientation (1 = upright); no pixel is decoded.

    Raises `ImageError` like `decode_image`, as far as the header tells.
    """
    try:
        with errors_named(path):
            size = plain_size(_beginning_of(path, ENOUGH))
            if size is not None and _is_allowed(*size):
                return size, 1
            with open_image(path) as image:
                check_size(image.size)
                return (image.height, image.width), exif_orientation(image)
    except ImageError as error:
        if not _further_headers:
            raise
        return _further_headers[-1](Path(path), error)


@contextmanager
def headers_otherwise(read: Callable[[Path, ImageError], tuple[Size, int]]) -> Iterator[None]:
    """Inside the block, for all of the process, `read_header` asks `read` of the files that it would refuse."""
    _further_headers.append(read)
    try:
        yield
    finally:
        _further_headers.pop()


def is_jpeg(path: str | Path) -> bool:
    """Whether a file is JPEG (or MPO) by its content; False for one that cannot be read."""
    try:
        return _beginning_of(path, len(JPEG_MARK)) == JPEG_MARK
    except (OSError, ImageError):
        return False


def upright_size(stored: Size, orientation: int) -> Size:
    """(height, width) of an image as people see it, from what `read_header` says."""
    return (stored[1], stored[0]) if orientation in TURNING else stored


def exif_orientation(image: Image.Image) -> int:
    """1..8; 1, upright, where the image has none or its EXIF data is damaged, and for TIFF.

    Reads nothing beyond the header: Pillow would decode a whole PNG to look for EXIF data behind the pixels,
    and then training (which decodes) and checking (which does not) could disagree. TIFF is 1 because Pillow
    itself sets TIFF images upright, and gives the upright size from the start.
    """
    if image.format == "TIFF":
        return 1
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def open_image(source: str | Path | bytes) -> Image.Image:
    """An image of one of `FORMATS`, of which nothing but the header is read yet."""
    if not isinstance(source, bytes):
        _check_file(os.stat(source))
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _check_file(found: os.stat_result) -> None:
    """Nothing waits at a pipe, or reads a device without an end."""
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise ImageError("a pipe, socket or device, not an image file")
    if found.st_size > LARGEST_FILE:
        raise ImageError(f"{found.st_size / 1e6:.0f} MB, of at most {LARGEST_FILE / 1e6:.0f}")


def _name(source: str | Path | bytes | None) -> str:
    if source is None:
        return "PIL image"
    return f"image of {len(source)} bytes" if isinstance(source, bytes) else str(source)


@contextmanager
def errors_named(source: str | Path | bytes | None) -> Iterator[None]:
    """Turn whatever goes wrong with a source (None: a PIL image) into an `ImageError` that names it."""
    # Damaged files make Pillow's parsers raise nearly anything (OSError, SyntaxError, struct.error, IndexError,
    # OverflowError, zlib.error ...). A caller wants one kind of error, so everything is caught here, on purpose.
    try:
        yield
    except Exception as error:
        raise ImageError(f"{_name(source)}: {_reason(error, source)}") from error


def _reason(error: Exception, source: str | Path | bytes | None) -> str:
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "this is a folder, not an image file"
    if isinstance(error, PermissionError):
        return "no permission to read this file"
    if isinstance(error, Image.UnidentifiedImageError):
        if _beginning(source) in TIFF_MARKS:
            return "a TIFF whose kind of pixels is not supported; use 1, 3 or 4 channels of 8 bits, or 1 of 16 or 32"
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    if isinstance(error, ValueError) and str(error).startswith(TOO_MUCH_TEXT):
        return "its metadata (texts or a colour profile) is too large when unpacked; save the image without it"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"too large to be decoded safely; the limit is {MAX_PIXELS // 10**6} megapixels"
    return f"broken or truncated image ({type(error).__name__}: {error})"


def _beginning(source: str | Path | bytes | None) -> bytes:
    """The four bytes that tell a format."""
    if source is None or isinstance(source, bytes):
        return source[:4] if source else b""
    return _beginning_of(source, 4)


def _beginning_of(path: str | Path, length: int) -> bytes:
    _check_file(os.stat(path))
    with open(path, "rb", buffering=0) as file:
        return file.read(length)


def check_size(size: tuple[int, int]) -> None:
    """ImageError for a (width, height) that is not decoded."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{width} x {height} pixels, which is empty")
    if not _is_allowed(height, width):
        raise ImageError(f"{width} x {height} pixels is too large; the limits are {MAX_PIXELS // 10**6} megapixels "
                         f"and {MAX_SIDE} pixels a side, so scale it down, cut it in tiles, or predict with "
                         "--max-pixels")  # fmt: skip


def _is_allowed(height: int, width: int) -> bool:
    return 0 < width * height <= MAX_PIXELS and max(width, height) <= MAX_SIDE
