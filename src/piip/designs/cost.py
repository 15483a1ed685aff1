"""Multiply-adds of the backbone as it runs, in closed form: what the meta device counts, fast enough to search.

The same rules as `profile.measured`: matrix products, convolutions, attention and samples; no norms, biases, padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from piip import config
from piip.config.spelled import LARGEST_GLOBAL_GRID, MOST_GROUPS, WINDOW
from piip.designs.parts import Model, Pyramid, neighbours

MAP_FACTORS = {(4, 8, 16, 32): 24, (8, 16, 32): 4}
"""multiply-adds of the transposed convolutions to maps of these strides, over cells x width^2 of the merged map"""
SAMPLE_MACS = 5
USUAL = config.Interaction()


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one forward of the backbone."""

    branches: int
    """with the exchanges between them"""
    maps: int
    """the merge, and the maps made from it"""

    @property
    def macs(self) -> int:
        """All of them."""
        return self.branches + self.maps


def cost_of(pyramid: Pyramid, strides: tuple[int, ...] = (4, 8, 16, 32)) -> Cost:
    """Of a pyramid with what is usual in everything that its words leave open."""
    branches = sum(branch_macs(model, size) for model, size in zip(pyramid.models, pyramid.sizes, strict=True))
    exchanges = sum(exchange_macs(*fine, *coarse) for fine, coarse in neighbours(pyramid))
    cells = [_grid(model, size) ** 2 for model, size in zip(pyramid.models, pyramid.sizes, strict=True)]
    width = max(model.width for model in pyramid.models)
    merge = 0
    if len(cells) > 1:
        inner = ((model.width + width) * own for model, own in zip(pyramid.models, cells, strict=True))
        merge = 9 * width * sum(inner)
    return Cost(branches + exchanges, merge + MAP_FACTORS[strides] * cells[0] * width**2)


@lru_cache(maxsize=4096)
def branch_macs(model: Model, size: int) -> int:
    """A ViT's patch embedding and blocks, without class token, with the usual windows."""
    grid, width = _grid(model, size), model.width
    cells = grid**2
    block = 12 * cells * width**2
    block += 2 * cells**2 * width if grid <= LARGEST_GLOBAL_GRID else _windowed(grid, width)
    return 3 * model.patch**2 * width * cells + model.depth * block


@lru_cache(maxsize=1 << 16)
def exchange_macs(fine: Model, fine_size: int, coarse: Model, coarse_size: int) -> int:
    """Of two neighbours, in both directions, after every group of blocks."""
    cells, others = _grid(fine, fine_size) ** 2, _grid(coarse, coarse_size) ** 2
    both = _injector(fine.width, cells, coarse.width, others) + _injector(coarse.width, others, fine.width, cells)
    return MOST_GROUPS * both


def _injector(width: int, queries: int, source_width: int, sources: int) -> int:
    points, values = USUAL.heads * USUAL.points, USUAL.value_width(width)
    total = sources * width * (source_width + values)
    total += queries * (3 * width * points + values * width + SAMPLE_MACS * USUAL.points * values)
    hidden = int(width * (USUAL.ffn_ratio or 0))
    return total + queries * hidden * (2 * width + 9)


def _grid(model: Model, size: int) -> int:
    return size // model.patch


def _windowed(grid: int, width: int) -> int:
    """Attention in windows on a grid of more than one; those that the edge cuts share a key for all that they lack.

    See `lean.attention`: that key is projected once for each of three kinds of cut windows.
    """
    whole, rest = divmod(grid, WINDOW)
    pairs = (whole * WINDOW**2 + rest**2) ** 2
    if rest == 0:
        return 2 * pairs * width
    cut = grid**2 - (whole * WINDOW) ** 2
    return 2 * (pairs + cut) * width + 3 * 3 * width**2
