"""Label maps: one class for each pixel, of annotations and of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from piip.backbone.merge import resize
from piip.structures import IGNORED, Prediction, Size

WINNERS_AT_ONCE = 2**26
"""values at full size in memory at one time"""


def padded_labels(targets: Sequence[Tensor], size: Size) -> Tensor:
    """Label maps [h, w] as one [B, *size] int64, ignored where the images were padded."""
    labels = targets[0].new_full((len(targets), *size), IGNORED, dtype=torch.int64)
    for row, target in zip(labels, targets, strict=True):
        row[: target.shape[0], : target.shape[1]] = target
    return labels


def winners(logits: Tensor, size: Size) -> Prediction:
    """The best class of each pixel and its probability at another size, a few classes at a time."""
    count = max(1, WINNERS_AT_ONCE // (size[0] * size[1]))
    best, labels, total = (logits.new_full(size, -torch.inf) for _ in range(3))
    logits = logits.contiguous()  # class by class, as what follows runs through them; maps may lie channels last
    for first in range(0, len(logits), count):
        some = resize(logits[None, first : first + count], size)[0]
        largest, which = some.max(dim=0)
        labels = torch.where(largest > best, which + first, labels)
        best = torch.maximum(best, largest)
        total = torch.logaddexp(total, some.logsumexp(dim=0))
    return {"labels": labels.long(), "scores": (best - total).exp()}
