"""One direction of an exchange in inference on a CUDA device: places, softmax and sampling in one kernel.

The plain module writes positions and weights of all points in float32, which takes a GPU as long as the sampling.
Legend: B batch, Q receiver's tokens, S source tokens, H heads, D channels per head, P points.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from piip.backbone.interaction import DeformableCrossAttention
from piip.lean.gpu import sampling
from piip.lean.gpu.sampling import can_be_asked_for, largest_difference, tried, wants_gradients, waves
from piip.ops.deformable_attention import cell_centres, deformable_attention
from piip.structures import Size


class KernelCrossAttention(DeformableCrossAttention):
    """The plain module where gradients are wanted, branches see other images, or the kernel does not work."""

    def mix(
        self,
        value: Tensor,
        offsets: Tensor,
        logits: Tensor,
        size: Size,
        source_size: Size,
        frame: Tensor | None = None,
    ) -> Tensor:
        """See `DeformableCrossAttention.mix`; the softmax too is in float32."""
        heads = value.unflatten(-1, (self.heads, -1))
        places = offsets.unflatten(-1, (self.heads, self.points, 2))
        weights = logits.unflatten(-1, (self.heads, self.points))
        if frame is not None or not kernel_is_used(heads, places, weights):
            return super().mix(value, offsets, logits, size, source_size, frame)
        mixed: Tensor = mix_level(heads, places, weights, *size, *source_size)
        return mixed


class Signature(NamedTuple):
    """What the kernel is compiled for; `samples` are points per query and head."""

    device: torch.device
    value: torch.dtype
    offsets: torch.dtype
    logits: torch.dtype
    heads: int
    channels: int
    samples: int


def kernel_is_used(value: Tensor, offsets: Tensor, logits: Tensor) -> bool:
    """For these inputs, here and now."""
    if wants_gradients(value, offsets, logits) or not can_be_asked_for(value, offsets, logits, logits.shape[3]):
        return False
    dtypes = (tensor.dtype for tensor in (value, offsets, logits))
    return works(value.device, *dtypes, *value.shape[2:], logits.shape[3])


@torch.compiler.assume_constant_result
def works(*signature: Any) -> bool:
    """See `sampling.works`."""
    asked = Signature(*signature)
    return tried(asked, asked.device, lambda: _difference(asked))


@torch.no_grad()
def _difference(asked: Signature) -> float:
    """From the plain path, for a small input."""
    with torch.inference_mode(False), torch.autocast(asked.device.type, enabled=False):
        grid, size, shape = (2, 5), (3, 4), (2, 10, asked.heads, asked.samples)
        value = waves(2, 12, asked.heads, asked.channels, like=asked.value, device=asked.device)
        offsets = 2 * waves(*shape, 2, like=asked.offsets, device=asked.device)
        logits = waves(*shape, like=asked.logits, device=asked.device)
        found = sampling.loaded().mix(value, offsets, logits, grid, size)
        scale = torch.tensor([size[1], size[0]], device=asked.device)
        points = cell_centres(grid, asked.device)[:, None, None] + offsets.float() / scale
        weights = logits.float().softmax(dim=-1)
        expected = deformable_attention(value, [size], points[:, :, :, None], weights[:, :, :, None])
        return largest_difference([found], [expected])


@torch.library.custom_op("piip::mix_level", mutates_args=())
def mix_level(
    value: Tensor, offsets: Tensor, logits: Tensor, lines: int, columns: int, height: int, width: int
) -> Tensor:
    """Without gradients: [B, Q, H * D].

    value: [B, S, H, D] of a source of height x width cells; offsets [B, Q, H, P, 2] in its cells, logits [B, Q, H, P]
    of queries on a grid of lines x columns.
    """
    out: Tensor = sampling.loaded().mix(value, offsets, logits, (lines, columns), (height, width))
    return out


@mix_level.register_fake
def _(value: Tensor, offsets: Tensor, logits: Tensor, lines: int, columns: int, height: int, width: int) -> Tensor:
    return value.new_empty(logits.shape[0], logits.shape[1], value.shape[2] * value.shape[3])
