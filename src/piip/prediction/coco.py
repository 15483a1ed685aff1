"""Found objects in the format of COCO's result files."""

from __future__ import annotations

from typing import Any

import torch

from piip.data.run_lengths import encode_mask
from piip.structures import Prediction

CocoResult = dict[str, Any]
"""One detection as COCO's result files have it: image_id, category_id, bbox (x, y, width, height), score and,
with masks, segmentation (compressed run lengths)"""


def detections_to_coco(prediction: Prediction, image_id: int, category_ids: tuple[int, ...]) -> list[CocoResult]:
    """One image's prediction in COCO's result format; `category_ids[label]` is the id written for a label.

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
    masks = prediction.get("masks")
    if masks is not None:
        for result, mask in zip(results, masks.detach().cpu().numpy(), strict=True):
            result["segmentation"] = encode_mask(mask)
    return results
