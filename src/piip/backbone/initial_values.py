"""Initial values of what no pretraining covers: interactions, merges and upsampling, as in the official classes."""

from __future__ import annotations

import math

import torch
from torch import nn

from piip.backbone.interaction import DeformableCrossAttention

LINEAR_STD = 0.02


@torch.no_grad()
def set_initial_values(*parts: nn.Module | None) -> None:
    """Linear layers of `parts` from a truncated normal of standard deviation 0.02, convolutions (transposed ones, too)
    from a normal one of sqrt(2 / fan-out), biases 0.

    Norms, LayerScale and the weights of the merge keep what their classes give them, and deformable attention its own
    values: offsets on a ring.
    """
    modules = [module for part in parts if part is not None for module in part.modules()]
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=LINEAR_STD)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in modules:
        if isinstance(module, DeformableCrossAttention):
            module.reset_parameters()
