"""3x3 convolutions with a quarter of the multiply-adds (Winograd 1980; Lavin and Gray 2016), for inference on a CPU.

The output is cut into tiles of 4x4. With g the 3x3 kernel and d the 6x6 inputs of a tile, the tile is

    A [(G g) * (B d)],

where A [16, 36], G [36, 9] and B [36, 36] are fixed matrices and * multiplies number by number: 36 products per pair of
channels instead of 144. Summed over the input channels, * is 36 matrix products over all tiles.

The matrices follow from six points at which polynomials are multiplied (Toom and Cook). With 0, +-sqrt(1/2), +-sqrt(2)
and infinity the result is as near to the exact one as that of a direct convolution in float32; with the usual whole
numbers it would be about six times as far (`benchmarks/winograd.py`).

Legend: B images, C channels in, O channels out, N tiles.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SIDE = 4
"""of a tile of the output, in pixels"""
REACH = SIDE + 2
"""of the inputs of a tile"""
KERNEL = 3
POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2.0**0.5, -(2.0**0.5))
"""and infinity"""
TILES = 256
"""at a time: what they need stays in the cache, and the weights are read once for all of them"""


def transform_weight(weight: Tensor) -> Tensor:
    """A kernel [O, C, 3, 3] as what `convolve` takes: [36, C, O], computed in float64 and rounded once."""
    _, kernels, _ = _matrices()
    flat = weight.detach().double().permute(2, 3, 1, 0).flatten(0, 1)  # [9, C, O]
    transformed = torch.matmul(kernels.to(weight.device), flat.flatten(1)).unflatten(1, flat.shape[1:])
    return transformed.to(weight.dtype)


def convolve(x: Tensor, transformed: Tensor, bias: Tensor | None, inner_rows: bool = False) -> Tensor:
    """The convolution of x [B, C, H, W] with stride 1 and padding 1: [B, O, H, W], in memory channels last.

    With `inner_rows`, x has its neighbours in the first and last row instead of padding: [B, O, H - 2, W].
    """
    _, _, height, width = x.shape
    above = 0
    if inner_rows:
        height, above = height - 2, 1
    down, across = -(-height // SIDE), -(-width // SIDE)
    grid = x.permute(0, 2, 3, 1)
    out = x.new_empty(len(x), down * SIDE, across * SIDE, transformed.shape[2])
    images, rows = max(1, TILES // (down * across)), max(1, TILES // across)
    for first in range(0, len(x), images):
        for top in range(0, down, rows):
            results = out[first : first + images, top * SIDE : (top + rows) * SIDE]
            inputs = _inputs(grid[first : first + images], top * SIDE + above, results.shape[1], results.shape[2])
            _convolve_tiles(inputs, transformed, bias, results)
    return out[:, :height, :width].permute(0, 3, 1, 2)


def _inputs(grid: Tensor, top: int, height: int, width: int) -> Tensor:
    """What `height` rows of `width` outputs from row `top` on read, of [B, H, W, C]; zeros beyond the edges."""
    inputs = grid.new_zeros(len(grid), height + 2, width + 2, grid.shape[3])
    start, stop = max(0, top - 1), min(grid.shape[1], top + height + 1)
    inputs[:, start - top + 1 : stop - top + 1, 1 : grid.shape[2] + 1] = grid[:, start:stop]
    return inputs


def _convolve_tiles(inputs: Tensor, transformed: Tensor, bias: Tensor | None, results: Tensor) -> None:
    """inputs [B, 4 n + 2, 4 m + 2, C] -> results [B, 4 n, 4 m, O]."""
    outputs, _, reads = (matrix.to(inputs.device, inputs.dtype) for matrix in _matrices())
    tiles = inputs.unfold(1, REACH, SIDE).unfold(2, REACH, SIDE)  # [B, n, m, C, 6, 6]
    shape = tiles.shape[:3]
    tiles = tiles.permute(4, 5, 0, 1, 2, 3).reshape(REACH**2, -1)
    tiles = torch.mm(reads, tiles).view(REACH**2, shape.numel(), -1)  # [36, N, C]
    products = torch.bmm(tiles, transformed)  # [36, N, O]
    pixels = torch.mm(outputs, products.flatten(1)).view(SIDE, SIDE, *shape, -1).permute(2, 3, 0, 4, 1, 5)
    places = results.unflatten(2, (-1, SIDE)).unflatten(1, (-1, SIDE))  # [B, n, 4, m, 4, O]
    if bias is None:
        places.copy_(pixels)
    else:
        torch.add(pixels, bias, out=places)


@lru_cache(maxsize=1)
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """A [16, 36], G [36, 9] and B [36, 36] in float64, of both directions together."""
    with torch.inference_mode(False), torch.device("cpu"):
        outputs, kernels = _values(SIDE), _values(KERNEL)  # of polynomials with so many coefficients, at the points
        reads = torch.linalg.inv(_values(REACH)).t()
        scale = reads.abs().amax(dim=1, keepdim=True)  # all of one size, so that sums lose nothing
        both = (outputs.t(), kernels * scale, reads / scale)
        return tuple(torch.kron(one, one).contiguous() for one in both)  # type: ignore[return-value]


def _values(coefficients: int) -> Tensor:
    """[6, coefficients]: powers of the points; at infinity only the highest counts."""
    powers = torch.arange(coefficients, dtype=torch.float64)
    finite = torch.tensor(POINTS, dtype=torch.float64)[:, None] ** powers
    return torch.cat((finite, (powers == coefficients - 1).double()[None]))
