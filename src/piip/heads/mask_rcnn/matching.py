"""Which anchors and proposals stand for which object, and which of them are trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

Sampler = Callable[[Tensor, int], Tensor]
"""(candidates [N], k) -> at most k of them"""

UNDECIDED = -2
BACKGROUND = -1
OBJECTS_AT_A_TIME = 32
"""300 objects against the 300 000 anchors of a 1120-pixel image at once would take gigabytes; so many neighbours meet
few of them"""


class Sample(NamedTuple):
    """Indices of the candidates that are trained on."""

    positive: Tensor
    """[P], into the candidates"""
    negative: Tensor
    """[N], into the candidates"""
    objects: Tensor
    """[P], the object that each positive stands for"""


def random_sample(candidates: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """`k` of the candidates at random, all of them if there are no more."""
    if len(candidates) <= k:
        return candidates
    return candidates[torch.randperm(len(candidates), device=candidates.device, generator=generator)[:k]]


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
    for objects in _neighbours(boxes) if len(candidates) else ():
        own = boxes[objects].float()
        near = _near(candidates, own) if len(boxes) > OBJECTS_AT_A_TIME else slice(None)
        iou = box_iou(own, candidates[near].float())  # [M', N']
        if not iou.numel():
            continue
        most, whose = iou.max(dim=0)
        index, before = objects[whose], best_object[near]
        # The first of two objects that it overlaps alike, as if they were gone through in order.
        better = (most > best[near]) | ((most == best[near]) & (most > 0) & (index < before))
        best_object[near] = torch.where(better, index, before)
        best[near] = torch.maximum(most, best[near])
        highest = iou.max(dim=1, keepdim=True).values
        claims = torch.where((iou == highest) & (highest >= minimum_iou), objects[:, None], BACKGROUND).amax(dim=0)
        # Where two objects claim one candidate the later wins: the reference goes through them in order.
        claimed_by[near] = torch.maximum(claims, claimed_by[near])
    matched = torch.where(best < negative_iou, BACKGROUND, UNDECIDED)
    matched = torch.where(best >= positive_iou, best_object, matched)
    return torch.where(claimed_by >= 0, claimed_by, matched)


def _neighbours(boxes: Tensor) -> Sequence[Tensor]:
    """Indices of the objects [M, 4], some at a time: neighbours, by strips of the image, in ascending order."""
    count = len(boxes)
    if count <= OBJECTS_AT_A_TIME:
        return (torch.arange(count, device=boxes.device),) if count else ()
    strips = math.ceil(math.sqrt(count / OBJECTS_AT_A_TIME))
    x, y = (boxes[:, :2] + boxes[:, 2:]).unbind(1)
    by_height = y.argsort().split(math.ceil(count / strips))
    across = torch.cat([strip[x[strip].argsort()] for strip in by_height])
    return [group.sort().values for group in across.split(OBJECTS_AT_A_TIME)]


def _near(candidates: Tensor, boxes: Tensor) -> Tensor:
    """Indices of the candidates that could overlap any of `boxes`, those that meet the rectangle around them all."""
    start, end = boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)
    return ((candidates[:, :2] < end) & (candidates[:, 2:] > start)).all(dim=1).nonzero()[:, 0]


def sample(matched: Tensor, count: int, positive_fraction: float, sampler: Sampler) -> Sample:
    """At most `count` candidates, at most `positive_fraction` of them positive; negatives fill the rest."""
    positive = sampler(torch.nonzero(matched >= 0).flatten(), int(count * positive_fraction))
    negative = sampler(torch.nonzero(matched == BACKGROUND).flatten(), count - len(positive))
    return Sample(positive, negative, matched[positive])
