"""Image files and PIL images to RGB arrays: the one way in for training, evaluation and prediction.

The rules, whatever the file holds:

- The result is uint8 [H, W, 3], RGB, and upright: the EXIF orientation is applied unless asked otherwise.
- Transparency is laid over white. Of an animation or a multi-page file, the first frame counts.
- 16-bit grey values are divided by 257, so that 65535 becomes 255. Pixels of 32 bits and floats carry no
  range of their own: 0..255 is taken as it is; above that, up to 65535, integers count as 16-bit; floats
  within 0..1 are multiplied by 255. Any other range is refused, because scaling it would be a guess.
- Sizes are checked before any pixel is decoded, and every failure is an `ImageError`.
- Photos of more than 40 megapixels may be asked for at a half, a quarter or an eighth of their size (`reduction_for`),
  each pixel the mean of those that it stands for. That takes a part of the memory: JPEG is decoded at that size, of the
  other formats only what Pillow itself decodes is there whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from piip.data.image_files import (
    TURNING,
    ImageError,
    check_size,
    errors_named,
    exif_orientation,
    open_image,
    upright_size,
)

if TYPE_CHECKING:
    from piip.structures import Size

LOSSY = ("JPEG", "MPO")
"""formats that do not keep the values of a mask"""
AT_ONCE = 16_000_000
"""pixels up to which an image is converted in one piece"""
STRIP = 1_000_000
"""pixels of a strip of rows, in larger ones"""

LARGE = 40_000_000
"""pixels up to which an image is never reduced"""
MARGIN = 2
"""how many times as large as needed, in both directions, a reduced image still is"""
REDUCTIONS = (8, 4, 2)

_FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""steps along rows and columns, after that, of each orientation"""


def decode_image(source: str | Path | bytes, *, upright: bool = True, reduction: int = 1) -> np.ndarray:
    """Pixels of an image file (path) or of an encoded image (bytes): uint8 [H, W, 3], RGB.

    Args:
        source: the file, or its content.
        upright: False leaves the pixels as they are stored, for annotations made in that frame.
        reduction: one of `REDUCTIONS` gives the image at that part of its size, see `reduced_size`.

    Raises `ImageError` for whatever is wrong with the file: missing, broken, truncated, too large, not an image.
    """
    with errors_named(source), open_image(source) as image:
        return _decoded(image, upright, reduction)


def decode_for(
    source: str | Path | bytes, needed: Callable[[Size], Size], *, upright: bool = True
) -> tuple[np.ndarray, Size]:
    """As `decode_image`, of a large photo no more than is `needed`, and the whole image's (height, width).

    `needed` says what (height, width) is enough of an image of the (height, width) that it is given. The pixels are
    those of `decode_image`, or of more than 40 megapixels a half, a quarter or an eighth, see `reduction_for`.
    """
    with errors_named(source), open_image(source) as image:
        check_size(image.size)
        size = upright_size((image.height, image.width), exif_orientation(image) if upright else 1)
        reduction = reduction_for(size, needed(size)) if size[0] * size[1] > LARGE else 1
        return _decoded(image, upright, reduction), size


def reduction_for(size: Size, needed: Size) -> int:
    """The part of its size, as 1, 2, 4 or 8, at which an image can be decoded where `needed` pixels are enough.

    More than 1 only for more than `LARGE` pixels, where `MARGIN` times the `needed` height and width are left.

    >>> reduction_for((8000, 10000), (800, 1000)), reduction_for((8000, 10000), (1000, 1250))
    (4, 4)
    >>> reduction_for((5000, 8000), (10, 16)), reduction_for((8000, 10000), (3000, 3750))
    (1, 1)
    """
    if size[0] * size[1] <= LARGE:
        return 1
    most = min(side // (MARGIN * least) for side, least in zip(size, needed, strict=True))
    return next((part for part in REDUCTIONS if part <= most), 1)


def reduced_size(size: Size, reduction: int) -> Size:
    """(height, width) of an image of `size` that was decoded with that `reduction`."""
    return -(-size[0] // reduction), -(-size[1] // reduction)


def decode_values(path: str | Path) -> np.ndarray:
    """The values of a mask file as they are stored: [H, W] uint8, uint16 or int32.

    Of a palette image these are the indices, not the colours. RGB counts only where its channels are equal. Raises
    `ImageError` as `decode_image` does.
    """
    with errors_named(path), open_image(path) as image:
        check_size(image.size)
        if image.format in LOSSY:
            raise ImageError(f"a mask in {image.format}, which changes values; save it as PNG")
        values = np.array(image)
        if image.mode == "LA":
            values = values[..., 0]
        if values.ndim == 3:
            if not (values[..., :3] == values[..., :1]).all():
                raise ImageError("a mask in colours; save the class of each pixel as a grey value or a palette index")
            values = values[..., 0]
        if not np.issubdtype(values.dtype, np.integer):
            if values.dtype != np.bool_:
                raise ImageError(f"a mask of {image.mode} pixels; use whole numbers, such as 8 or 16 bit grey")
            values = values.astype(np.uint8)
        return values


def rgb_from_pil(image: Image.Image, *, upright: bool = True) -> np.ndarray:
    """A PIL image of any mode as uint8 [H, W, 3] RGB, by the rules of this module."""
    with errors_named(None):
        return _decoded(image, upright)


def _decoded(image: Image.Image, upright: bool, reduction: int = 1) -> np.ndarray:
    check_size(image.size)
    if reduction > 1:
        whole = image.size
        image.draft(None, (max(1, image.width // reduction), max(1, image.height // reduction)))
        reduction = reduction if image.size == whole else 1
    image.load()
    orientation = exif_orientation(image) if upright else 1
    small = image.width * image.height <= AT_ONCE and reduction == 1
    pixels = np.array(_to_rgb(image)) if small else _in_strips(image, reduction)
    return pixels if orientation == 1 else _turned(pixels, orientation)


def _in_strips(image: Image.Image, reduction: int = 1) -> np.ndarray:
    """The same pixels with less memory: what is converted on the way is there for one strip of rows at a time."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return np.array(_reduced(_to_rgb(image), reduction))  # the range of all values counts
    pixels = np.empty((*reduced_size((image.height, image.width), reduction), 3), np.uint8)
    rows = reduction * max(1, STRIP // (image.width * reduction))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = _reduced(_to_rgb(image.crop((0, top, image.width, bottom))), reduction)
        pixels[top // reduction : top // reduction + strip.height] = np.asarray(strip)
    return pixels


def _reduced(image: Image.Image, reduction: int) -> Image.Image:
    return image if reduction == 1 else image.reduce(reduction)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, 3] as EXIF's `orientation` means them."""
    turned = pixels.transpose(1, 0, 2) if orientation in TURNING else pixels
    down, across = _FLIPS[orientation]
    return np.array(turned[::down, ::across], order="C")


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or mode in ("I", "F"):
        return Image.fromarray(_to_8_bit(np.asarray(image), sixteen=mode.startswith("I;16"))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")


def _to_8_bit(values: np.ndarray, sixteen: bool) -> np.ndarray:
    """Grey values of 16 or 32 bits, or floats, [H, W] to uint8."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("float pixels with NaN or infinity")
    if low < 0 or high > 65535:
        raise ImageError(f"pixel values {low:g} to {high:g}; use 0..1 (float), 0..255 or 0..65535")
    scaled = values.astype(np.float64)
    if np.issubdtype(values.dtype, np.floating):
        if high > 255:
            raise ImageError(f"float pixel values {low:g} to {high:g}; use 0..1 or 0..255")
        if high <= 1:
            scaled = scaled * 255
    elif sixteen or high > 255:
        scaled = scaled / 257
    return (scaled + 0.5).astype(np.uint8)
