"""What an image's process does: the bytes of a stranger's upload to pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from piip.data.decode import decode_image
from piip.data.image_files import FORMATS


class Decoding:
    """Decodes uploads of at most `pixels`.

    In a process of its own: what kills it (a fault in a codec, too much memory) or hangs it costs that one request.
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels

    def __call__(self, upload: bytes) -> np.ndarray:
        """uint8 [H, W, 3] RGB, upright; ImageError for what is no image, ValueError for one that is too large."""
        try:
            with Image.open(io.BytesIO(upload), formats=FORMATS) as image:
                width, height = image.size
        except Exception:
            return decode_image(upload)  # which says what is wrong with it
        if width * height > self.pixels:
            raise ValueError(f"{width} x {height} pixels; this server takes {self.pixels / 1e6:g} megapixels at most")
        return decode_image(upload)
