"""Inference copies of models, in which linear maps that meet are one.

Not a multiply-add more than the function needs: norms' weights and layer scales move into the neighbouring layers,
BatchNorm into its convolution, the projection, norm and value layer of an interaction into one, the last transposed
convolution of a feature map and the head's 1x1 convolution on it into one. On a CPU 3x3 convolutions take a quarter of
their multiply-adds. The outputs are the same but for rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch

from piip.inference.convolutions import fold_convolutions
from piip.inference.copies import release, with_shared_tensors
from piip.inference.fold_branches import fold_branch
from piip.inference.fold_heads import fold_head
from piip.inference.fold_interactions import fold_interactions
from piip.inference.fold_maps import drop_unused_levels

if TYPE_CHECKING:
    from piip.model import PIIPModel


Winograd = Literal["everywhere", "head", "nowhere"]
"""where 3x3 convolutions take fewer multiply-adds"""


@torch.no_grad()
def fuse(model: PIIPModel, share: bool = False, winograd: Winograd = "everywhere") -> PIIPModel:
    """A copy of `model` for inference with everything folded; `model` itself is not touched.

    Args:
        model: in training or eval mode; the copy is in eval mode and has no gradients.
        share: tensors that folding leaves alone (about a third) are the model's own, not copies of them: saves memory,
            but the copy must be made anew after the model has changed.
        winograd: where to take fewer multiply-adds for 3x3 convolutions in float32 on a CPU, for five times the memory
            of their weights, see `ops.winograd`; "head" for a backbone that will be compiled, which makes no use of it.

    Every other weight is copied at most once, so that both together need at most twice the memory.

    Raises:
        ValueError: another `winograd`.
    """
    if winograd not in (places := get_args(Winograd)):
        raise ValueError(f"winograd {winograd!r}: use one of {', '.join(map(repr, places))}")
    fused = with_shared_tensors(model).eval()
    backbone = fused.backbone
    for branch in backbone.branches:
        fold_branch(branch)
    fold_interactions(backbone.interactions)
    if backbone.maps is not None:
        drop_unused_levels(backbone.maps)
    fold_head(backbone.maps, fused.head)
    release(fused, model, share)
    if winograd != "nowhere":
        fold_convolutions(fused if winograd == "everywhere" else fused.head)
    fused.folded = True
    return fused
