"""Position tables of copies for inference, resized once for each size: on a GPU every other pass spends time on them.

A table belongs to the weights it was made from: where these were written to or replaced, it is made anew. Writing past
PyTorch's count of changes (`parameter.data`) does not show here; whoever keeps a copy of a model looks for that, see
`current_copy`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from piip.backbone.vit import ResizedPositions
from piip.inference.kept import can_be_kept
from piip.lean.embedding import LeanPositions
from piip.structures import Size

MOST_KEPT = 16
"""sizes. More are made anew each time: what is kept once stays, for a CUDA graph may read it"""
Origin = tuple[object, ...]


class KeptPositions(ResizedPositions):
    """The tables as the paper makes them, kept."""

    _origin: Origin = ()
    _tables: dict[Size, Tensor] | None = None

    def of(self, stored: Tensor, size: Size) -> Tensor:
        """See `ResizedPositions`; the same tensor each time, where no gradient is wanted."""
        if torch.is_grad_enabled() and stored.requires_grad:
            return super().of(stored, size)
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            kept = None if self._tables is None else self._tables.get(size)
            return super().of(stored, size) if kept is None else kept
        origin = _origin(stored)
        if self._tables is None or origin != self._origin:
            self._tables, self._origin = {}, origin
        table = self._tables.get(size)
        if table is None:
            with torch.inference_mode(False), torch.no_grad():
                table = super().of(stored, size)
            if len(self._tables) < MOST_KEPT and can_be_kept(table):
                self._tables[size] = table
        return table


class KeptLeanPositions(KeptPositions, LeanPositions):
    """The tables as matrix products make them, kept."""


def _origin(stored: Tensor) -> Origin:
    """Which weights these are; tensors without numbers (on the meta device, or fake) have no address."""
    address = stored.data_ptr() if type(stored) is Tensor and not stored.is_meta else 0
    changes = 0 if stored.is_inference() else stored._version
    return address, changes, stored.shape, stored.dtype, stored.device
