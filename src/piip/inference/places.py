"""Where interactions sample, in copies for inference on a GPU: one pass over the offsets, and nothing made twice."""

from __future__ import annotations

import torch
from torch import Tensor

from piip.backbone.frames import placed
from piip.backbone.interaction import DeformableCrossAttention
from piip.ops.constants import constants
from piip.ops.deformable_attention import cell_centres
from piip.structures import Size

MOST_KEPT = 256
"""grids; more are made anew each time: what is kept once stays, for a CUDA graph may read it"""

_kept: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}


class PlacedCrossAttention(DeformableCrossAttention):
    """The same; offsets in half precision become positions in float32 as they are read."""

    def mix(
        self,
        value: Tensor,
        offsets: Tensor,
        logits: Tensor,
        size: Size,
        source_size: Size,
        frame: Tensor | None = None,
    ) -> Tensor:
        """See `DeformableCrossAttention`."""
        centres, scale = _grid(size, source_size, offsets.device)
        places = placed(centres, frame)[..., None, None, None, :]
        points = torch.addcmul(places, offsets.unflatten(-1, (self.heads, 1, self.points, 2)), scale)
        weights = logits.unflatten(-1, (self.heads, self.points)).softmax(dim=-1).unsqueeze(3)  # [B, Q, H, 1, P]
        mixed: Tensor = self.sampling(value.unflatten(-1, (self.heads, -1)), [source_size], points, weights)
        return mixed


def _grid(size: Size, source_size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres [Q, 2] of the receiver's cells in 0..1, and [2]: the width and height of a cell of the source."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _made(size, source_size, device)
    key = (*size, *source_size, device)
    if key not in _kept:
        with torch.inference_mode(False), torch.no_grad():
            made = _made(size, source_size, device)
        if type(made[0]) is not Tensor or made[0].is_meta or len(_kept) >= MOST_KEPT:
            return made
        _kept[key] = made
    return _kept[key]


def _made(size: Size, source_size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    height, width = source_size
    return cell_centres(size, device), constants((1 / width, 1 / height), device)
