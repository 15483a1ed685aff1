"""How wrong scores and boxes are: focal loss, L1 and GIoU, weights included."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from piip import processes
from piip.heads.dino.matching import ALPHA, GAMMA, Matches, Objects, generalised_iou
from piip.heads.dino.positions import to_corners

CLASS_WEIGHT, BOX_WEIGHT, GIOU_WEIGHT = 1.0, 5.0, 2.0


def detection_losses(logits: Tensor, boxes: Tensor, matches: Matches, objects: Objects) -> Tensor:
    """[M, 3]: classification, L1 and GIoU loss of each of M predictions, logits [M, B, Q, K], boxes [M, B, Q, 4].

    Queries without an object are to have no class. Sums are divided by the number of pairs, at least 1, as a mean over
    the processes. In float32 (float64 for float64) whatever the surroundings.
    """
    with torch.autocast(logits.device.type, enabled=False):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, boxes = logits.to(dtype), boxes.to(dtype)
        pairs = processes.mean_count(matches.query.shape[1], logits.device, least=1)
        layer = torch.arange(len(logits), device=logits.device)[:, None].expand_as(matches.query)
        wanted = torch.zeros_like(logits)
        wanted[layer, matches.image, matches.query, objects.labels[matches.object]] = 1.0
        classes = sigmoid_focal_loss(logits, wanted, ALPHA, GAMMA).sum((1, 2, 3))
        found = boxes[layer, matches.image, matches.query]  # [M, P, 4]
        true = objects.boxes.to(dtype)[matches.object]
        distance = (found - true).abs().sum((1, 2))
        scale = objects.scales.to(dtype)[matches.object]
        giou = generalised_iou(to_corners(found) * scale, to_corners(true) * scale)
        losses = (CLASS_WEIGHT * classes, BOX_WEIGHT * distance, GIOU_WEIGHT * (1 - giou).sum(1))
        return torch.stack(losses, dim=1) / pairs
