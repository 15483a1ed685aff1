"""The same weights under another config: other sides and views of the branches' images, other limits of the input."""

from __future__ import annotations

from piip import config
from piip.inference.copies import with_shared_tensors
from piip.model import PIIPModel


def described_as(model: PIIPModel, described: config.Model) -> PIIPModel:
    """A model of the very same parameters and buffers as `model` that follows `described`.

    The two configs may differ in what no weight has to do with: `Branch.size`, `Branch.view` and `Model.preprocess`.
    """
    other = with_shared_tensors(model)
    other.config = described
    other.backbone.config = described.backbone
    for module, branch in zip(other.backbone.branches, described.backbone.branches, strict=True):
        module.config = branch
    other.head.config = described.head
    return other
