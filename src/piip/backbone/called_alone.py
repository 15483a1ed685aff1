"""Which parts of a backbone run one after the other, each by one call: what can be gathered for that call only."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from piip.backbone.piip import PIIPBackbone


def called_alone(backbone: PIIPBackbone) -> Iterator[nn.Module]:
    """Blocks, exchanges, projections of merges and maps: modules with parameters, none of them within another.

    No module reads the weights of these from outside. What is left of a backbone (embeddings, the merges' weights) is
    small beside them.
    """
    for branch in backbone.branches:
        yield from branch.vit.blocks if hasattr(branch, "vit") else branch.blocks()
    for part in _others(backbone):
        if any(True for _ in part.parameters()):
            yield part


def _others(backbone: PIIPBackbone) -> Iterator[nn.Module]:
    for stage in backbone.interactions:
        for unit in stage.units:  # type: ignore[union-attr]
            yield from (unit.to_fine, unit.to_coarse)
    for merge in (backbone.merge, *backbone.earlier_merges.values()):
        yield from getattr(merge, "projections", ())
    if backbone.maps is not None:
        yield from backbone.maps.levels
