"""Copies whose backbone is stored in half precision, for devices that compute faster in it.

Weights are rounded once and the tokens stay in half precision from block to block. Under autocast both would be cast
again for every product, and all that is between the products (norms, sums, scales) would be read and written in
float32, which on a GPU takes longer than the products. Sums inside norms and attention and the positions of sampling
are in float32 here, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from piip.heads.precision import without_autocast
from piip.inference.choice import Mode, choose
from piip.model import PIIPModel
from piip.structures import BranchState, View


class HalfModel(PIIPModel):
    """A folded copy whose backbone is in half precision, and runs without autocast; its head is in float32.

    Feature maps come in half precision, so that the head must run under autocast; the states of branches in float32.
    """

    stored: torch.dtype

    def features(self, images: Tensor, views: Sequence[View | None] = ()) -> list[Tensor] | list[BranchState]:
        """See `PIIPModel`."""
        rounded = [view and view._replace(images=view.images.to(self.stored)) for view in views]
        with without_autocast(images.device):
            features = super().features(images.to(self.stored), rounded)
        return [_in_float32(one) if isinstance(one, BranchState) else one for one in features]  # type: ignore[return-value]


@torch.no_grad()
def with_half_backbone(folded: PIIPModel, dtype: torch.dtype, mode: Mode = "predict") -> PIIPModel:
    """`folded` itself, the parameters of its backbone in `dtype`; the buffers that folding made stay as they are."""
    new: dict[int, nn.Parameter] = {}  # by the old one's id, so that tied parameters stay tied
    for module in folded.backbone.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in new:
                half = parameter.to(dtype)
                if isinstance(module, nn.Conv2d) and parameter.ndim == 4:
                    half = half.to(memory_format=torch.channels_last)  # as the maps
                new[id(parameter)] = nn.Parameter(half, requires_grad=False)
            module.register_parameter(name, new[id(parameter)])
    choose(folded.backbone, mode)
    folded.__class__ = HalfModel
    folded.stored = dtype  # type: ignore[assignment]
    return folded


def _in_float32(state: BranchState) -> BranchState:
    prefix = None if state.prefix is None else state.prefix.float()
    return state._replace(tokens=state.tokens.float(), prefix=prefix)
