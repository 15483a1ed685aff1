"""Where tokens and queries are: padding, sine embeddings, reference points and boxes.

Legend: B batch, L levels, S tokens of all levels, Q queries. Positions are in 0..1 of the valid part of an image
unless they say otherwise, (x, y); boxes are (centre x, centre y, width, height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert

from piip.ops.constants import constants
from piip.ops.deformable_attention import cell_centres
from piip.structures import Size

BOX_TEMPERATURE = 10000.0
LOGIT_EPS = 1e-3
"""boxes closer than this to 0 or 1 are taken as this far, as in the reference"""


class Geometry(NamedTuple):
    """What is known of the tokens of all levels but their contents."""

    sizes: tuple[Size, ...]
    """(height, width) of each level in cells"""
    valid: Tensor
    """[B, L, 2] float32: the part of each level's (width, height) that is not padding"""
    padding: Tensor
    """[B, S] bool: tokens whose cells lie in the padding"""
    positions: Tensor
    """[B, S, C] float32: sine embeddings of the cells"""

    def centres(self) -> Tensor:
        """[B, S, L, 2]: each token's own place, in 0..1 of each level's whole width and height, padding included."""
        own = torch.cat([
            cell_centres(size, self.valid.device) / self.valid[:, level, None] for level, size in enumerate(self.sizes)
        ], dim=1)  # fmt: skip
        return own[:, :, None] * self.valid[:, None]

    def on_levels(self, boxes: Tensor) -> Tensor:
        """[B, Q, L, 4]: boxes [B, Q, 4] of the valid part in 0..1 of each level's whole width and height."""
        return boxes[:, :, None] * torch.cat((self.valid, self.valid), dim=-1)[:, None]


def geometry(
    sizes: Sequence[Size],
    image_sizes: Sequence[Size],
    padded: Size,
    channels: int,
    temperature: float,
    device: torch.device,
) -> Geometry:
    """`Geometry` of levels over a batch of images of `image_sizes`, padded to one size."""
    limits = constants([side for size in image_sizes for side in size], device).view(-1, 2)
    return geometry_within(sizes, limits, padded, channels, temperature)


def geometry_within(sizes: Sequence[Size], limits: Tensor, padded: Size, channels: int, temperature: float) -> Geometry:
    """The same for images whose sizes (height, width) are a tensor, `limits` [B, 2] float32."""
    valid, padding, positions = [], [], []
    for height, width in sizes:
        rows = _valid_cells(limits[:, 0], padded[0], height)  # [B, h]
        columns = _valid_cells(limits[:, 1], padded[1], width)  # [B, w]
        valid.append(torch.stack((columns.float().mean(1), rows.float().mean(1)), dim=-1))
        padding.append(~(rows[:, :, None] & columns[:, None]).flatten(1))
        down = sine(_angles(rows), channels // 2, temperature)[:, :, None].expand(-1, -1, width, -1)
        across = sine(_angles(columns), channels // 2, temperature)[:, None].expand(-1, height, -1, -1)
        positions.append(torch.cat((down, across), dim=-1).flatten(1, 2))
    return Geometry(tuple(sizes), torch.stack(valid, 1), torch.cat(padding, 1), torch.cat(positions, 1))


def _valid_cells(limits: Tensor, pixels: int, cells: int) -> Tensor:
    """[B, cells] bool: which cells along a side of `pixels` have their nearest pixel within the image."""
    inside = torch.arange(pixels, device=limits.device) < limits[:, None]
    return F.interpolate(inside[:, None].float(), size=cells, mode="nearest")[:, 0].bool()


def _angles(valid: Tensor) -> Tensor:
    """[B, n]: 0..2 pi over the valid cells; the first is one step from 0, the last nearly 2 pi."""
    count = valid.cumsum(1, dtype=torch.float32)
    return count / (count[:, -1:] + 1e-6) * (2 * math.pi)


def sine(angles: Tensor, features: int, temperature: float) -> Tensor:
    """[..., features]: sines and cosines, in turns, of `angles` [...] divided by 1 up to `temperature`."""
    index = torch.arange(features, dtype=torch.float32, device=angles.device)
    slowed = angles[..., None] / temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / features)
    return torch.stack((slowed[..., 0::2].sin(), slowed[..., 1::2].cos()), dim=-1).flatten(-2)


def embed_boxes(boxes: Tensor, channels: int) -> Tensor:
    """[B, Q, 2 * channels] sine embeddings of boxes [B, Q, 4], in the reference's order y, x, width, height."""
    embedded = sine(boxes * (2 * math.pi), channels // 2, BOX_TEMPERATURE)
    x, y, sides = embedded[:, :, :1], embedded[:, :, 1:2], embedded[:, :, 2:]
    return torch.cat((y, x, sides), dim=2).flatten(2)


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logits of numbers in 0..1, no further than `LOGIT_EPS` from either end."""
    x = x.clamp(0, 1)
    return (x.clamp(min=LOGIT_EPS) / (1 - x).clamp(min=LOGIT_EPS)).log()


def to_corners(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) as (x1, y1, x2, y2), [..., 4]."""
    return box_convert(boxes, "cxcywh", "xyxy")


def to_centres(boxes: Tensor) -> Tensor:
    """(x1, y1, x2, y2) as (centre x, centre y, width, height), [..., 4]."""
    return box_convert(boxes, "xyxy", "cxcywh")


def scale_of(size: Size, device: torch.device | None = None) -> Tensor:
    """[4] (width, height, width, height): from boxes in 0..1 to pixels of an image of `size`."""
    return constants((size[1], size[0]), device).repeat(2)
