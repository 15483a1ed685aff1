"""What runs instead of the paper's modules: `choose` decides by mode and device, `fuse` makes copies for inference.

In a copy for inference linear maps that meet are one. Not a multiply-add more than the function needs: norms' weights
and layer scales move into the neighbouring layers, BatchNorm into its convolution, the projection, norm and value layer
of an interaction into one, the last transposed convolution of a feature map and the head's 1x1 convolution on it into
one. On a CPU 3x3 convolutions take a quarter of their multiply-adds. The outputs are the same but for rounding.
"""

from __future__ import annotations

from typing import get_args

import torch

from piip.inference.choice import WINOGRAD, Mode, Winograd, choose
from piip.inference.copies import release, with_shared_tensors
from piip.inference.cpu.convolutions import fold_convolutions
from piip.inference.folding.backbone import fold_backbone
from piip.inference.folding.heads import fold_head
from piip.model import PIIPModel

__all__ = ["Mode", "Winograd", "choose", "fuse"]


@torch.no_grad()
def fuse(model: PIIPModel, share: bool = False, winograd: Winograd | None = None, mode: Mode = "predict") -> PIIPModel:
    """A copy of `model` for inference with everything folded; `model` itself is not touched.

    Args:
        model: in training or eval mode; the copy is in eval mode and has no gradients.
        share: tensors that folding leaves alone (about a third) are the model's own, not copies of them: saves memory,
            but the copy must be made anew after the model has changed.
        winograd: where to take fewer multiply-adds for 3x3 convolutions in float32 on a CPU, for five times the memory
            of their weights, see `inference.cpu.winograd`; None for what suits the mode.
        mode: what the copy is for, see `inference.choice`; "predict", "compile" or "export".

    Every other weight is copied at most once, so that both together need at most twice the memory.

    Raises:
        ValueError: another `winograd` or `mode`.
    """
    if mode not in WINOGRAD:
        raise ValueError(f"mode {mode!r}: use one of {', '.join(map(repr, WINOGRAD))}")
    winograd = WINOGRAD[mode] if winograd is None else winograd
    if winograd not in (places := get_args(Winograd)):
        raise ValueError(f"winograd {winograd!r}: use one of {', '.join(map(repr, places))}")
    fused = with_shared_tensors(model).eval()
    choose(fused, "export")  # folding knows the plain modules
    fold_backbone(fused.backbone)
    fold_head(fused.backbone.maps, fused.head)
    choose(fused, mode)
    release(fused, model, share)
    if winograd != "nowhere":
        fold_convolutions(fused if winograd == "everywhere" else fused.head)
    fused.folded = True
    return fused
