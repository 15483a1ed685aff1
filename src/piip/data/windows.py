"""Image files by windows from the disk: what is too large, or of a kind, for Pillow to decode.

TIFF and GeoTIFF (tiled, compressed, beyond 4 GB), PNG and JPEG, by rasterio, which the extra "large" brings. The pixels
are those of `data.decode`: uint8 RGB, transparency over white, 16-bit values divided by 257. Of several channels those
that the file calls red, green and blue count; where it calls none so, the first three of at most four. Colours of JPEGs
are interpolated otherwise than by Pillow.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from piip.data import image_files
from piip.data.image_files import TIFF_MARKS, ImageError
from piip.data.plain_headers import JPEG_MARK
from piip.structures import Size

DRIVERS = dict.fromkeys(TIFF_MARKS, "GTiff") | {b"\x89PNG": "PNG", JPEG_MARK: "JPEG"}
"""GDAL's, by how a file begins; it has others, which can name further files and addresses"""
KNOWN = ("uint8", "uint16")
STRIP = 4_000_000
"""pixels of a strip of rows, where all of a file is read"""
STRICT = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
}
"""GDAL is not to look for files beside the image, nor to fill up what is missing of a JPEG with grey"""
CACHE = 64 << 20
"""bytes that GDAL keeps of what it decoded; of itself it would be a twentieth of the machine's memory"""
UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90,
}
"""what EXIF's orientations ask for"""


class FileImage:
    """An open image file that gives windows as an array does: `image[top:bottom, left:right]` is uint8 [h, w, 3].

    The pixels are as they are stored, which `orientation`, EXIF's, may want turned (a TIFF's is not known). Not to be
    shared by threads.

    Raises:
        ImageError: there is no such file, it has more than `max_pixels`, or pixels that are not known.
        ImportError: rasterio is not installed.
    """

    def __init__(self, path: str | Path, max_pixels: int) -> None:
        self.path = Path(path)
        self._file = _opened(self.path)
        self.size: Size = (self._file.height, self._file.width)
        try:
            if self.size[0] * self.size[1] > max_pixels:
                raise ImageError(
                    f"{path}: {self.size[1]} x {self.size[0]} pixels, more than max_pixels, which is {max_pixels}"
                )
            self._channels = _channels_of(self._file, path)
            self._palette = _palette_of(self._file)
            orientation = str(self._file.tags().get("EXIF_Orientation", "1"))
            self.orientation = int(orientation) if orientation.isdecimal() else 1
        except BaseException:
            self.close()
            raise

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        return (*self.size, 3)

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """[h, w, 3] uint8; slices without a step."""
        (top, bottom, _), (left, right, _) = (
            part.indices(length) for part, length in zip(window, self.size, strict=True)
        )
        from rasterio.windows import Window

        area = Window(left, top, max(0, right - left), max(0, bottom - top))
        if 0 in (area.width, area.height):
            return np.zeros((area.height, area.width, 3), np.uint8)
        channels, alpha = self._channels
        try:
            with _strictly():
                values = self._file.read([*channels, *alpha], window=area)
        except Exception as error:  # whatever GDAL meets in a damaged file
            raise ImageError(f"{self.path}: broken or truncated image ({error})") from error
        return self._as_rgb(values, len(channels))

    @property
    def is_for_pillow(self) -> bool:
        """Whether `data.decode` is to have the last word: within its limits, and no TIFF of other pixels."""
        height, width = self.size
        small = height * width <= image_files.MAX_PIXELS and max(self.size) <= image_files.MAX_SIDE
        return small and self._file.driver != "GTiff"

    def whole(self) -> np.ndarray:
        """All of it, [H, W, 3] uint8, read in strips."""
        height, width = self.size
        pixels = np.empty(self.shape, np.uint8)
        rows = max(1, STRIP // width)
        for top in range(0, height, rows):
            pixels[top : top + rows] = self[top : top + rows, :]
        return pixels

    def _as_rgb(self, values: np.ndarray, colours: int) -> np.ndarray:
        """[C, h, w] as they are stored -> [h, w, 3]."""
        values = np.moveaxis(values, 0, -1)
        if values.dtype == np.uint16:
            values = ((values.astype(np.uint32) * 2 + 257) // 514).astype(np.uint8)  # / 257, rounded
        if self._palette is not None:
            return self._palette[values[..., 0]]
        pixels = values[..., :colours]
        if values.shape[-1] > colours:
            alpha = values[..., colours:].astype(np.uint32)
            pixels = ((pixels * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))

    def close(self) -> None:
        """As for a file."""
        self._file.close()

    def __enter__(self) -> FileImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_large(path: str | Path, max_pixels: int) -> np.ndarray | None:
    """All pixels of a file, uint8 [H, W, 3], upright, see `FileImage`; None where `is_for_pillow`."""
    with FileImage(path, max_pixels) as image:
        if image.is_for_pillow:
            return None
        pixels = image.whole()
        turn = UPRIGHT.get(image.orientation)
        return pixels if turn is None else np.ascontiguousarray(turn(pixels))


@contextmanager
def headers_up_to(max_pixels: int | None) -> Iterator[None]:
    """Inside the block, data sets may have files of so many pixels, and of the kinds that `FileImage` reads; None: not.

    Their pixels are for `FileImage` alone.
    """
    if max_pixels is None:
        yield
        return

    def read(path: Path, before: ImageError) -> tuple[Size, int]:
        try:
            with FileImage(path, max_pixels) as image:
                if image.is_for_pillow:
                    raise before
                return image.size, image.orientation
        except ImageError as error:
            raise before if error is before else ImageError(f"{before}; by windows: {error}") from error

    with image_files.headers_otherwise(read):
        yield


def _opened(path: Path) -> Any:
    rasterio = _rasterio()
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file")
    with path.open("rb") as file:
        beginning = file.read(4)
    driver = next((driver for mark, driver in DRIVERS.items() if beginning.startswith(mark)), None)
    if driver is None:
        raise ImageError(f"{path}: not a TIFF, PNG or JPEG, which alone can be read by windows")
    try:
        with warnings.catch_warnings(), _strictly():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(os.path.abspath(path), driver=driver)
    except rasterio.errors.RasterioError as error:
        raise ImageError(f"{path}: broken or truncated image ({error})") from error


def _channels_of(file: Any, path: str | Path) -> tuple[list[int], list[int]]:
    """The channels that are colours, one or three, and the one that is transparency, if any; counted from 1."""
    from rasterio.enums import ColorInterp

    kinds = set(file.dtypes)
    if len(kinds) > 1 or not kinds <= set(KNOWN):
        raise ImageError(f"{path}: pixels of {', '.join(sorted(kinds))}; use 8 or 16 bits without sign")
    named = [colour for colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) if colour in file.colorinterp]
    if len(named) == 3:
        colours = [file.colorinterp.index(colour) + 1 for colour in named]
    elif file.count <= 4:
        colours = [1, 2, 3] if file.count >= 3 else [1]
    else:
        raise ImageError(f"{path}: {file.count} channels, of which none is called red, green and blue; save three")
    alpha = [file.colorinterp.index(ColorInterp.alpha) + 1] if ColorInterp.alpha in file.colorinterp else []
    return colours, alpha


def _palette_of(file: Any) -> np.ndarray | None:
    """[256, 3] uint8: the colours of an image of palette indices."""
    from rasterio.enums import ColorInterp

    if file.colorinterp[0] is not ColorInterp.palette:
        return None
    table = np.zeros((256, 3), np.uint8)
    for index, colour in file.colormap(1).items():
        table[index % 256] = colour[:3]
    return table


@contextmanager
def _strictly() -> Iterator[None]:
    """GDAL as it is to read here; the size of its cache, which `Env` would leave behind, is put back."""
    rasterio = _rasterio()
    with rasterio.Env(**STRICT):
        usual = rasterio.env.get_gdal_config("GDAL_CACHEMAX")
        rasterio.env.set_gdal_config("GDAL_CACHEMAX", CACHE)
        try:
            yield
        finally:
            rasterio.env.set_gdal_config("GDAL_CACHEMAX", usual)


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.env
        import rasterio.errors
    except ImportError:
        raise ImportError('images by windows need rasterio: pip install "piip[large]"') from None
    return rasterio
