"""Found objects in the format of COCO's result files."""

from __future__ import annotations

from typing import Any

import torch

from piip.data.object_masks import Masks
from piip.heads.mask_rcnn.mask import kept_masks
from piip.structures import Prediction, Size

CocoResult = dict[str, Any]
"""One detection as COCO's result files have it: image_id, category_id, bbox (x, y, width, height), score and,
with masks, segmentation (compressed run lengths)"""


def detections_to_coco(
    prediction: Prediction,
    image_id: int,
    category_ids: tuple[int, ...],
    size: Size | None = None,
    masks: Masks | None = None,
) -> list[CocoResult]:
    """One image's prediction in COCO's result format; `category_ids[label]` is the id written for a label.

    `size` of the image, which masks that are not pasted need, or `masks` themselves.

    Raises:
        ValueError: a label without category id, or a box or score that is not finite
    """
    boxes = prediction["boxes"].detach().cpu().double().reshape(-1, 4)
    scores = prediction["scores"].detach().cpu().double()
    labels = prediction["labels"].tolist()
    if not (boxes.isfinite().all() and scores.isfinite().all()):
        raise ValueError(f"image {image_id}: the prediction has a box or score that is not a finite number")
    if labels and not 0 <= min(labels) <= max(labels) < len(category_ids):
        raise ValueError(f"image {image_id}: labels from {min(labels)} to {max(labels)}, but there are "
                         f"{len(category_ids)} classes; use data with the classes of the model")  # fmt: skip
    sides = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1)
    results: list[CocoResult] = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, score, label in zip(sides.tolist(), scores.tolist(), labels, strict=True)
    ]
    if masks is None and (size is not None or "masks" in prediction):
        masks = kept_masks(prediction, size or (0, 0))
    if masks is not None:
        for result, segmentation in zip(results, masks.to_coco(), strict=True):
            result["segmentation"] = segmentation
    return results
