"""Where branches with different views of one photo see the same place: an affine map per image.

A frame is that of `structures.View`, [B, 2, 2]: scale and shift from places in 0..1 of a batch's own images to those of
a view. None stands for the own images themselves. Legend: B batch, Q places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from piip.ops.deformable_attention import cell_centres
from piip.structures import Size


def between(receiver: Tensor | None, source: Tensor | None) -> Tensor | None:
    """[B, 2, 2]: from places in what the receiver sees to places in what the source sees; None where that is one."""
    if receiver is source:
        return None
    if receiver is None:
        return source
    scale, shift = receiver.unbind(1)
    if source is None:
        return torch.stack((1 / scale, -shift / scale), dim=1)
    ratio = source[:, 0] / scale
    return torch.stack((ratio, source[:, 1] - ratio * shift), dim=1)


def placed(places: Tensor, frame: Tensor | None) -> Tensor:
    """Places [Q, 2] as (x, y) in the view of `frame`, [B, Q, 2]; as they are without one."""
    return places if frame is None else torch.addcmul(frame[:, 1:], places, frame[:, :1])


def under(view_map: Tensor, frame: Tensor, size: Size) -> Tensor:
    """What of a view's map [B, C, h, w] lies under the batch's own images, on a grid of `size`: [B, C, *size].

    Bilinear in float32 (float64 for float64), beyond the map's outermost centres their values, as where a map of the
    own images is resized: a view that shows just them gives that but for rounding.
    """
    precise = view_map.to(torch.promote_types(view_map.dtype, torch.float32))
    places = placed(cell_centres(size, view_map.device), frame).unflatten(1, size)
    grid = (2 * places - 1).to(precise.dtype)
    sampled = F.grid_sample(precise, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.to(view_map.dtype)
