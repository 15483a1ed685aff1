"""Made-up batches: noise for images, boxes and labels anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from piip.model import PIIPModel
from piip.structures import Batch, Instances, Size

OBJECTS = 10
"""annotated per image"""


def noise(model: PIIPModel, size: Size, batch: int, device: torch.device, targets: bool) -> Batch:
    """A batch of images of one size without padding; `targets` for a training step."""
    task, classes = model.config.task, len(model.config.classes)
    kinds = {"detection": _objects, "segmentation": _labels, "classification": _shares}
    wanted = [kinds[task](size, classes) for _ in range(batch)] if targets else []
    images = torch.randn(batch, 3, *size)
    return Batch(images, targets=wanted).to(device)


def _objects(size: Size, classes: int) -> Instances:
    height, width = size
    corner = torch.rand(OBJECTS, 2) * 0.7
    side = 0.05 + torch.rand(OBJECTS, 2) * 0.25
    boxes = torch.cat((corner, corner + side), dim=1) * torch.tensor([width, height, width, height])
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1 : y2 + 1, x1 : x2 + 1] = 1
    return Instances(boxes, torch.randint(classes, (OBJECTS,)), masks)


def _labels(size: Size, classes: int) -> Tensor:
    return torch.randint(classes, size)


def _shares(_: Size, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.randint(classes, ()), classes).float()
