"""Contrastive denoising: in training, the annotated objects with noise on them are queries of their own.

Each group holds every object twice: a positive, of which the decoder is to restore the box and the class, and a
negative, further off, which it is to give no class. Neither the ordinary queries nor other groups may see a group:
they would see the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from piip import config, processes
from piip.heads.dino.positions import LOGIT_EPS, to_centres, to_corners
from piip.heads.draws import FROM_ANY, Draws


class Denoising(NamedTuple):
    """The queries that go before the ordinary ones: G groups of N positives and N negatives, N of the fullest image."""

    content: Tensor
    """[B, G*2*N, C]: what a noisy class looks like; 0 where an image has fewer than N objects"""
    boxes: Tensor
    """[B, G*2*N, 4] in 0..1"""
    groups: int
    image: Tensor
    """[P] of the P positives, whose image"""
    query: Tensor
    """[P], which of the image's queries"""
    object: Tensor
    """[P], which of all objects of the batch it is to become"""


def number_of_groups(budget: int, objects: int) -> int:
    """How many groups share `budget` pairs of queries when the fullest image has so many objects; one at least."""
    return max(1, budget // max(1, objects))


def denoising_queries(
    labels: Sequence[Tensor],
    boxes: Sequence[Tensor],
    embedding: nn.Embedding,
    head: config.DINO,
    draws: Draws = FROM_ANY,
) -> Denoising | None:
    """Queries from each image's labels [N_i] and boxes [N_i, 4] in 0..1; None where no image has objects.

    The fullest image, which decides on how many there are, is that of all processes.
    """
    begins = [0, *accumulate(len(one) for one in labels)][:-1]
    chosen = [_chosen(one, head.denoising_objects, draws.of(index)) for index, one in enumerate(labels)]
    labels, boxes = ([one[some] for one, some in zip(all_of, chosen, strict=True)] for all_of in (labels, boxes))
    counts = [len(one) for one in labels]
    [most] = processes.largest([max(counts)], embedding.weight.device)
    if most == 0:
        return None
    device = embedding.weight.device
    groups = number_of_groups(head.denoising_queries, most)
    # The counts are known here, so that nothing below has to ask a GPU for a size, which would wait for it.
    image = torch.cat([torch.full((count,), index, device=device) for index, count in enumerate(counts)])
    which = torch.cat([torch.arange(count, device=device) for count in counts])
    present = torch.stack([torch.arange(most, device=device) < count for count in counts])  # [B, N]
    shape = (len(counts), groups, 2, most)
    here = most - max(counts)  # what only other processes' images have
    known_labels = F.pad(pad_sequence(list(labels), batch_first=True), (0, here))  # [B, N]
    known_boxes = F.pad(pad_sequence(list(boxes), batch_first=True), (0, 0, 0, here))  # [B, N, 4]

    noisy = _other_labels(known_labels[:, None, None].expand(shape), embedding.num_embeddings, head.label_noise, draws)
    content = embedding(noisy) * present[:, None, None, :, None]
    moved = _moved_boxes(known_boxes[:, None, None].expand(*shape, 4), head.box_noise, draws)
    moved = torch.where(present[:, None, None, :, None], moved, 0.5)
    positive = torch.arange(groups, device=device)[:, None] * 2 * most + which  # [G, sum N_i]
    return Denoising(
        content.flatten(1, 3),
        moved.flatten(1, 3),
        groups,
        image.repeat(groups),
        positive.flatten(),
        torch.cat([some + begin for some, begin in zip(chosen, begins, strict=True)]).repeat(groups),
    )


def _chosen(labels: Tensor, most: int | None, generator: torch.Generator | None) -> Tensor:
    """Positions [K] of the objects of an image that have queries: all, or as many as there may be, in their order."""
    count, device = len(labels), labels.device
    if most is None or count <= most:
        return torch.arange(count, device=device)
    return torch.randperm(count, generator=generator, device=device)[:most].sort().values


def _other_labels(labels: Tensor, classes: int, noise: float, draws: Draws) -> Tensor:
    """`labels` with a share of half of `noise` replaced by any class."""
    replace = draws.uniform(torch.empty(labels.shape, device=labels.device)) < noise / 2
    return torch.where(replace, draws.below(labels, classes), labels)


def _moved_boxes(boxes: Tensor, noise: float, draws: Draws) -> Tensor:
    """Boxes [B, G, 2, N, 4] with every side moved: positives by up to `noise` half sides, negatives by one to two."""
    corners, half = to_corners(boxes), boxes[..., 2:].repeat(1, 1, 1, 1, 2) / 2
    distance = draws.uniform(boxes)
    distance[:, :, 1] += 1
    sign = draws.below(boxes, 2) * 2 - 1
    moved = to_centres((corners + sign * distance * half * noise).clamp(0, 1))
    return moved.clamp(LOGIT_EPS, 1 - LOGIT_EPS)


def blocked_queries(denoising: Denoising, matching: int) -> Tensor:
    """[R + Q, R + Q] bool, R denoising and Q ordinary queries: row may not see column.

    The ordinary ones see no denoising query, a group sees no other group; all see the ordinary ones.
    """
    count = denoising.content.shape[1]
    device = denoising.content.device
    group = torch.arange(count, device=device) // (count // denoising.groups)
    group = torch.cat((group, torch.full((matching,), -1, device=device)))
    return (group >= 0) & (group != group[:, None])
