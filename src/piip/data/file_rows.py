"""A photo in a file that is too large for memory, read from top to bottom as its parts are asked for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from piip.data.windows import STRIP, FileImage


class FileRows:
    """Parts of an open file as of a tensor: `photo[:, top:bottom, left:right]` is uint8 [3, h, w].

    The rows that were read last are kept, of the file's whole width and as many as the tallest part so far, because the
    tiles of a row and what is around them have them in common. So whoever goes from top to bottom reads each row of a
    file about once, which is the only fast way with PNG and JPEG.

    Raises:
        ImageError: a part of the file is damaged, when it is asked for.
    """

    def __init__(self, file: FileImage) -> None:
        self.shape = (3, *file.size)
        self._file = file
        self._top, self._rows = 0, np.empty((0, file.size[1], 3), np.uint8)
        self._tallest = 0

    def __getitem__(self, part: tuple[slice, slice, slice]) -> Tensor:
        _, rows, columns = part
        top, bottom, _ = rows.indices(self.shape[1])
        self._hold(top, bottom)
        pixels = self._rows[top - self._top : bottom - self._top, columns]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _hold(self, top: int, bottom: int) -> None:
        """Have the rows from `top` to `bottom`."""
        self._tallest = max(self._tallest, bottom - top)
        end = self._top + len(self._rows)
        if self._top <= top and bottom <= end:
            return
        goes_on = self._top <= top <= end
        first = max(self._top, min(top, bottom - self._tallest)) if goes_on else top
        held = self._rows[first - self._top :] if goes_on else self._rows[:0]
        rows = np.empty((bottom - first, self.shape[2], 3), np.uint8)
        rows[: len(held)] = held
        self._rows = held[:0]  # lest there be three of them
        at_a_time = max(1, STRIP // self.shape[2])
        for start in range(first + len(held), bottom, at_a_time):
            stop = min(start + at_a_time, bottom)
            rows[start - first : stop - first] = self._file[start:stop, :]
        self._top, self._rows = first, rows
