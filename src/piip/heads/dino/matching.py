"""Which query stands for which object: the cheapest one-to-one assignment (Hungarian), per layer and image."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from piip.heads.dino.positions import scale_of, to_centres, to_corners
from piip.structures import Instances, Size

CLASS_COST, BOX_COST, GIOU_COST = 2.0, 5.0, 2.0
ALPHA, GAMMA = 0.25, 2.0
"""of the focal loss and cost"""


class Objects(NamedTuple):
    """The annotated objects of a batch, one image after the other."""

    labels: Tensor
    """[N] int64"""
    boxes: Tensor
    """[N, 4] (centre x, centre y, width, height) in 0..1"""
    scales: Tensor
    """[N, 4] (width, height, width, height) of each object's image in pixels"""
    counts: list[int]
    """objects of each image"""


class Matches(NamedTuple):
    """The pairs of M predictions of a batch (decoder layers, encoder)."""

    image: Tensor
    """[M, P]"""
    query: Tensor
    """[M, P]"""
    object: Tensor
    """[M, P], among all objects of the batch"""


def objects_of(targets: list[Instances], image_sizes: list[Size]) -> Objects:
    """The objects of a batch of images of `image_sizes` (without padding)."""
    scales = [
        scale_of(size, target.boxes.device).expand(len(target.boxes), 4)
        for target, size in zip(targets, image_sizes, strict=True)
    ]
    scale = torch.cat(scales)
    boxes = to_centres(torch.cat([target.boxes for target in targets]).float() / scale)
    return Objects(
        torch.cat([target.labels for target in targets]), boxes, scale, [len(target.boxes) for target in targets]
    )


def repeated(objects: Objects, times: int, queries: int) -> Objects:
    """Every object so many times, for a matching that gives it so many of an image's `queries`.

    Fewer times where the queries do not suffice, lest cheap objects take those of dear ones.
    """
    if times == 1:
        return objects
    own = torch.arange(len(objects.labels), device=objects.labels.device).split(objects.counts)
    each = [max(1, min(times, queries // max(1, count))) for count in objects.counts]
    index = torch.cat([image.repeat(repeats) for image, repeats in zip(own, each, strict=True)])
    counts = [count * repeats for count, repeats in zip(objects.counts, each, strict=True)]
    return Objects(objects.labels[index], objects.boxes[index], objects.scales[index], counts)


@torch.no_grad()
def match_queries(logits: Tensor, boxes: Tensor, objects: Objects) -> Matches:
    """Pair queries with objects for logits [M, B, Q, K] and boxes [M, B, Q, 4], all M at once.

    Every object has one query, or every query one object where there are more objects. The costs travel to the CPU
    together; the assignment is scipy's. Raises ImportError without scipy.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError('training a DINO needs scipy: pip install "piip[train]"') from None

    device, start = logits.device, 0
    tables = []
    for image, count in enumerate(objects.counts):
        end = start + count
        own = Objects(objects.labels[start:end], objects.boxes[start:end], objects.scales[start:end], [count])
        tables.append(costs(logits[:, image], boxes[:, image], own))
        start = end
    # Numbers that are not finite have no order; the losses, which are not finite either, then say what is wrong.
    flat = torch.cat([table.flatten() for table in tables]).nan_to_num(1e9, 1e9, -1e9).cpu()
    parts = flat.split([table.numel() for table in tables])
    wanted = [one for part, table in zip(parts, tables, strict=True) for one in part.view(table.shape).numpy()]
    # Of hundreds of objects several at a time: scipy lets go of Python's lock.
    with ThreadPoolExecutor(THREADS) if flat.numel() > AT_A_TIME else nullcontext() as pool:
        pairs_of = iter((map if pool is None else pool.map)(linear_sum_assignment, wanted))
        found: list[list[tuple[int, int, int]]] = [[] for _ in range(len(logits))]
        start = 0
        for image, count in enumerate(objects.counts):
            for layer in found:
                layer += [(image, query, start + index) for query, index in zip(*next(pairs_of), strict=True)]
            start += count
    pairs = torch.tensor(found, device=device, dtype=torch.long).reshape(len(logits), len(found[0]), 3)
    return Matches(*pairs.unbind(-1))


THREADS = min(8, os.cpu_count() or 1)
AT_A_TIME = 1 << 22
"""pairs of a query and an object: of all layers and hundreds of objects at once they would take gigabytes"""


def costs(logits: Tensor, boxes: Tensor, objects: Objects) -> Tensor:
    """[M, Q, N]: what it costs that a query stands for an object, of one image: logits [M, Q, K], boxes [M, Q, 4]."""
    if len(logits) > 1 and logits.shape[:2].numel() * len(objects.labels) > AT_A_TIME:
        return torch.cat([costs(*one, objects) for one in zip(logits.split(1), boxes.split(1), strict=True)])
    p = logits.float().sigmoid()
    absent = -(1 - p + 1e-12).log() * (1 - ALPHA) * p**GAMMA
    present = -(p + 1e-12).log() * ALPHA * (1 - p) ** GAMMA
    classes = (present - absent)[..., objects.labels]
    distance = torch.cdist(boxes.float(), objects.boxes.expand(len(boxes), -1, -1), p=1)
    scale = objects.scales[:1] if len(objects.scales) else boxes.new_ones(1, 4)
    giou = generalised_iou(
        (to_corners(boxes.float()) * scale)[:, :, None], (to_corners(objects.boxes) * scale)[None, None]
    )
    return CLASS_COST * classes + BOX_COST * distance - GIOU_COST * giou


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of boxes (x1, y1, x2, y2) [..., 4] with boxes [..., 4], -1..1."""
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    union, hull = union.clamp(min=1e-6), hull.clamp(min=1e-6)  # the reference's guard against empty boxes
    return overlap / union - (hull - union) / hull
