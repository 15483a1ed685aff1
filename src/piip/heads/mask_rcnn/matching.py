"""Which anchors and proposals stand for which object, and which of them are trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

Sampler = Callable[[Tensor, int], Tensor]
"""(candidates [N], k) -> at most k of them"""

UNDECIDED = -2
BACKGROUND = -1
OBJECTS_AT_A_TIME = 32
"""300 objects against the 300 000 anchors of a 1120-pixel image at once would take gigabytes"""


class Sample(NamedTuple):
    """Indices of the candidates that are trained on."""

    positive: Tensor
    """[P], into the candidates"""
    negative: Tensor
    """[N], into the candidates"""
    objects: Tensor
    """[P], the object that each positive stands for"""


def random_sample(candidates: Tensor, k: int) -> Tensor:
    """`k` of the candidates at random, all of them if there are no more."""
    if len(candidates) <= k:
        return candidates
    return candidates[torch.randperm(len(candidates), device=candidates.device)[:k]]


def match_boxes(
    candidates: Tensor, boxes: Tensor, positive_iou: float, negative_iou: float, minimum_iou: float
) -> Tensor:
    """For each candidate box [N, 4] the index of its object among `boxes` [M, 4], BACKGROUND or UNDECIDED: [N].

    A candidate belongs to the object it overlaps most, from `positive_iou` on. Besides, every object takes the
    candidates that overlap it most of all, from `minimum_iou` on, whatever else they overlap.
    """
    best = torch.zeros(len(candidates), device=candidates.device)
    best_object = torch.zeros(len(candidates), dtype=torch.long, device=candidates.device)
    claimed_by = torch.full_like(best_object, BACKGROUND)
    for start in range(0, len(boxes) if len(candidates) else 0, OBJECTS_AT_A_TIME):
        iou = box_iou(boxes[start : start + OBJECTS_AT_A_TIME].float(), candidates.float())  # [M', N]
        most, whose = iou.max(dim=0)
        best_object = torch.where(most > best, whose + start, best_object)
        best = torch.maximum(most, best)
        highest = iou.max(dim=1, keepdim=True).values
        order = torch.arange(start, start + len(iou), device=iou.device)[:, None]
        claims = torch.where((iou == highest) & (highest >= minimum_iou), order, BACKGROUND).amax(dim=0)
        # Where two objects claim one candidate the later wins: the reference goes through them in order.
        claimed_by = torch.where(claims >= 0, claims, claimed_by)
    matched = torch.where(best < negative_iou, BACKGROUND, UNDECIDED)
    matched = torch.where(best >= positive_iou, best_object, matched)
    return torch.where(claimed_by >= 0, claimed_by, matched)


def sample(matched: Tensor, count: int, positive_fraction: float, sampler: Sampler) -> Sample:
    """At most `count` candidates, at most `positive_fraction` of them positive; negatives fill the rest."""
    positive = sampler(torch.nonzero(matched >= 0).flatten(), int(count * positive_fraction))
    negative = sampler(torch.nonzero(matched == BACKGROUND).flatten(), count - len(positive))
    return Sample(positive, negative, matched[positive])
