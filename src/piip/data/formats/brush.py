"""Label Studio's brush masks: RGBA pixels along the rows, packed as a stream of bits.

The stream begins with the number of values (32 bits), the bits of a value less one (5) and four sizes less one (4 bits
each). Then come blocks: one bit says whether one value is repeated, two which of the sizes the length is written in,
then the length less one, and one value or as many as the length says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from piip.data.run_lengths import RunLengthError

CHANNELS = 4


def brush_mask(values: Any, height: int, width: int) -> np.ndarray:
    """Whether each pixel [H, W] is painted at all; RunLengthError for a stream that is not one of such a picture."""
    try:
        packed = np.array(values, dtype=np.uint8) if isinstance(values, list) else None
    except (TypeError, ValueError, OverflowError) as error:
        raise RunLengthError("brush mask that is no list of bytes") from error
    if packed is None or packed.ndim != 1:
        raise RunLengthError("brush mask that is no list of bytes")
    bits = _Bits(packed)
    total = bits.take(32)
    if total != height * width * CHANNELS:
        raise RunLengthError("brush mask for another image size")
    value_bits = bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    pixels = np.empty(total, dtype=np.uint8)
    done = 0
    while done < total:
        repeated = bits.take(1)
        length = bits.take(sizes[bits.take(2)]) + 1
        if length > total - done:
            raise RunLengthError("brush mask that does not add up to the image")
        pixels[done : done + length] = bits.take(value_bits) if repeated else bits.many(value_bits, length)
        done += length
    return pixels[CHANNELS - 1 :: CHANNELS].reshape(height, width) > 0


class _Bits:
    """Numbers out of a stream of bits, the highest bit first."""

    def __init__(self, packed: np.ndarray) -> None:
        self.bits = np.unpackbits(packed)
        self.place = 0

    def take(self, count: int) -> int:
        return int("".join(map(str, self._next(count))), 2)

    def many(self, count: int, numbers: int) -> np.ndarray:
        """The lowest 8 bits of so many numbers."""
        return np.packbits(self._next(count * numbers).reshape(numbers, count)[:, -8:], axis=1)[:, 0] >> max(
            8 - count, 0
        )

    def _next(self, count: int) -> np.ndarray:
        self.place += count
        if self.place > len(self.bits):
            raise RunLengthError("brush mask that is cut off")
        return self.bits[self.place - count : self.place]
