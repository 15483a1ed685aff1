"""Inside a head, and what it shares with the backbone: as its `Folding` declares."""

from __future__ import annotations

from typing import Any

from torch import nn

from piip.heads.head import Head
from piip.inference.folding.affine import absorb_affine, absorb_batch_norm
from piip.inference.folding.maps import fold_laterals


def fold_head(maps: nn.Module | None, head: Head) -> None:
    """The head, and the maps (of the backbone) that it reads."""
    folding = head.folding()
    for module in folding.training_only:
        _put(head, module, None)
    for conv, norm in folding.batch_norms:
        absorb_batch_norm(conv, norm)  # type: ignore[arg-type]
        _put(head, norm, nn.Identity())
    for norm, layers in folding.affine:
        absorb_affine(norm, layers)
    if folding.map_readers:
        readers = nn.ModuleList(folding.map_readers)
        fold_laterals(maps, readers)
        for before, after in zip(folding.map_readers, readers, strict=True):
            if after is not before:
                _put(head, before, after)


def _put(root: nn.Module, module: nn.Module, other: nn.Module | None) -> None:
    """`other` in the place of `module`, wherever in `root` that is."""
    parent: Any
    for parent in root.modules():
        for name, child in list(parent.named_children()):
            if child is module:
                setattr(parent, name, other)
                return
    raise ValueError(f"a {type(module).__name__} that is declared for folding is no part of the {type(root).__name__}")
