"""What detectors ask of annotated objects, said before a loss is made of wrong ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from piip.structures import Instances


def check_instances(targets: Sequence[Instances], images: int, classes: int, masks: bool) -> None:
    """Refuse targets that make no sense for `images` images and `classes` classes.

    Data sets of this package never make such ones. Others' would end in an error of some kernel, on a GPU one that
    ends the process, or in a model that learns nonsense. All values cost one synchronisation with the device.

    Raises:
        ValueError: says which image's boxes, labels or masks are wrong, and what they must be.
    """
    if len(targets) != images:
        raise ValueError(f"{len(targets)} targets for {images} images: give one Instances for each, empty ones too")
    for number, target in enumerate(targets):
        _check_shapes(target, f"targets[{number}]", masks)
    wrong = torch.stack([part for target in targets for part in _wrong_values(target, classes)]).tolist()
    for number in range(images):
        boxes, labels = wrong[2 * number : 2 * number + 2]
        if boxes:
            raise ValueError(
                f"targets[{number}].boxes: {boxes} are not (x1, y1, x2, y2) in pixels with x1 < x2 and y1 < y2"
            )
        if labels:
            raise ValueError(
                f"targets[{number}].labels: {labels} are not of the {classes} classes; labels are 0 to {classes - 1}"
            )


def _check_shapes(target: Instances, name: str, masks: bool) -> None:
    boxes, labels = target.boxes, target.labels
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
        raise ValueError(f"{name}.boxes: {boxes.dtype} {list(boxes.shape)}; must be float [N, 4], [0, 4] for none")
    if labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"{name}.labels: {labels.dtype} {list(labels.shape)}; must be int64 [{len(boxes)}] as the boxes"
        )
    if not masks:
        return
    if target.masks is None:
        raise ValueError(
            f"{name}.masks: None, but the model has a mask head: give [N, H, W] uint8, or make it without (masks=False)"
        )
    if target.masks.ndim != 3 or len(target.masks) != len(boxes):
        raise ValueError(f"{name}.masks: {list(target.masks.shape)}; must be [{len(boxes)}, H, W] as the boxes")


def _wrong_values(target: Instances, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How many boxes and how many labels are wrong."""
    right = target.boxes.isfinite().all(dim=1) & (target.boxes[:, 2:] > target.boxes[:, :2]).all(dim=1)
    known = (target.labels >= 0) & (target.labels < classes)
    return (~right).sum(), (~known).sum()
