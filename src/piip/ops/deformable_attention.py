"""Multi-level deformable attention (Zhu et al. 2021), in plain PyTorch.

Legend: B batch, Q queries, H heads, L levels, P points per level, S source tokens (all levels), D channels per head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip.structures import Size


class DeformableSampling(nn.Module):
    """`deformable_attention` as a module without parameters, for which another that samples faster can stand."""

    def forward(self, value: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor) -> Tensor:
        """See `deformable_attention`."""
        return deformable_attention(value, sizes, points, weights)


def deformable_attention(value: Tensor, sizes: Sequence[Size], points: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinearly sampled values.

    Args:
        value: [B, S, H, D], the source tokens of all levels, row by row, level after level.
        sizes: (height, width) of each level in cells; their areas sum to S.
        points: [B, Q, H, L, P, 2], sampling positions (x, y) in 0..1 of the level's width and height.
            Cell (0, 0) has its centre at (0.5 / width, 0.5 / height); outside 0..1 lie zeros.
        weights: [B, Q, H, L, P], attention weights.

    Returns:
        [B, Q, H * D] in the dtype of `value`.

    Raises:
        ValueError: if `sizes` do not match the number of source tokens or of levels.

    Positions and sums are handled in float32 (float64 if `value` is) whatever the dtype of `value`: in half
    precision a position on a grid of 100 cells would be off by a tenth of a cell.
    """
    check_sizes(value, sizes, points)
    batch, _, heads, channels = value.shape
    queries, _, levels, count = points.shape[1:5]
    dtype = sum_dtype(value)
    grids = (2 * points.to(dtype) - 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # [B*H, L, Q, P, 2]
    sampled = []
    for level, tokens in enumerate(split_levels(value.to(dtype), sizes)):
        image = tokens.permute(0, 2, 3, 1).reshape(batch * heads, channels, *sizes[level])
        sampled.append(F.grid_sample(image, grids[:, level], padding_mode="zeros", align_corners=False))
    stacked = torch.stack(sampled, dim=-2)  # [B*H, D, Q, L, P]
    mixed = weights.to(dtype).permute(0, 2, 1, 3, 4).reshape(batch * heads, 1, queries, levels, count)
    out = (stacked * mixed).sum((-1, -2)).reshape(batch, heads * channels, queries)
    return out.transpose(1, 2).to(value.dtype)


def check_sizes(value: Tensor, sizes: Sequence[Size], points: Tensor) -> None:
    """ValueError if `sizes` do not match the number of source tokens or of levels."""
    tokens = sum(height * width for height, width in sizes)
    if tokens != value.shape[1] or len(sizes) != points.shape[3]:
        raise ValueError(
            f"levels {list(sizes)} hold {tokens} tokens, but value has {value.shape[1]} and points have "
            f"{points.shape[3]} levels"
        )


def sum_dtype(value: Tensor) -> torch.dtype:
    """What positions and sums are handled in."""
    return torch.promote_types(value.dtype, torch.float32)


def split_levels(value: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
    """[B, S, ...] -> the tokens [B, height * width, ...] of each level."""
    return value.split([height * width for height, width in sizes], dim=1)


def cell_centres(size: Size, device: torch.device) -> Tensor:
    """[H*W, 2] float32: (x, y) in 0..1 of the centre of each cell of a grid, row by row."""
    height, width = size
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=-1)


def ring_offsets(heads: int, levels: int, points: int) -> Tensor:
    """[H, L, P, 2] float32, where sampling starts: a ring of directions, one per head, the p-th point at distance p."""
    angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
    directions = directions / directions.abs().amax(dim=-1, keepdim=True)
    distances = torch.arange(1, points + 1, dtype=torch.float32)
    return (directions[:, None, None] * distances[:, None]).expand(-1, levels, -1, -1)
