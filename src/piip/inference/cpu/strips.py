"""3x3 convolutions some rows at a time, in inference on a CPU: for maps that should not be there twice.

A strip's result needs one row more above and below it, so nothing is computed twice and nothing depends on the strips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip.inference.cpu.convolutions import FewerProducts
from piip.inference.cpu.winograd import SIDE, convolve
from piip.structures import Size

CELLS = 1 << 15
"""of a strip, of all images together; a map of no more is convolved in whole"""

Rows = Callable[[int, int], Tensor]
"""(first, last) -> [B, C, last - first, W]: rows of a map, the last not included"""


def rows_of(level: Tensor) -> Rows:
    """Of a map [B, C, H, W] that is there."""
    return lambda first, last: level[:, :, first:last]


def is_cut(size: Size, batch: int) -> bool:
    """Whether a map is convolved in more than one strip."""
    return size[0] > strip_height(size[1], batch)


def strip_height(width: int, batch: int) -> int:
    """Rows of a strip: a multiple of what `inference.cpu.winograd` takes at a time."""
    return max(1, CELLS // (batch * width * SIDE)) * SIDE


def convolved(conv: nn.Module, rows: Rows, size: Size, batch: int) -> Iterator[tuple[slice, Tensor]]:
    """The convolution of a map of `size`, strip by strip: which rows, and they [B, O, h, W].

    `conv` is of 3x3 with stride 1, padded with a row of zeros on each side; what it gives is the caller's own.
    """
    height, width = size
    step = strip_height(width, batch)
    if not is_cut(size, batch) or not _can_be_cut(conv):
        yield slice(0, height), conv(rows(0, height))
        return
    for top in range(0, height, step):
        bottom = min(top + step, height)
        above, below = int(top > 0), int(bottom < height)
        strip = rows(top - above, bottom + below)
        if not above or not below:
            strip = F.pad(strip, (0, 0, 1 - above, 1 - below))
        yield slice(top, bottom), _inner_rows(conv, strip)


def _can_be_cut(conv: nn.Module) -> bool:
    return isinstance(conv, nn.Conv2d) and conv.padding in ((1, 1), "same") and conv.padding_mode == "zeros"


def _inner_rows(conv: nn.Module, strip: Tensor) -> Tensor:
    """[B, C, h + 2, W] -> [B, O, h, W]."""
    assert isinstance(conv, nn.Conv2d)
    if isinstance(conv, FewerProducts) and conv.applies(strip):
        return convolve(strip, conv.transformed, conv.bias, inner_rows=True)
    return F.conv2d(strip, conv.weight, conv.bias, padding=(0, 1), groups=conv.groups)


def whole(conv: nn.Module, rows: Rows, size: Size, batch: int) -> Tensor:
    """The convolution of a map of `size`, [B, O, H, W], in memory channels last."""
    out: Tensor | None = None
    for part, strip in convolved(conv, rows, size, batch):
        if part == slice(0, size[0]):
            return strip
        if out is None:
            shape = (batch, strip.shape[1], *size)
            out = torch.empty(shape, dtype=strip.dtype, device=strip.device, memory_format=torch.channels_last)
        out[:, :, part] = strip
    assert out is not None
    return out
