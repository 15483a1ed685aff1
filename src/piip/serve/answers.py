"""A result as the bytes of the answer that was asked for."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import PIL.Image

from piip.files import json_text
from piip.prediction.label_map import SegmentationResult
from piip.prediction.objects import Result
from piip.prediction.results import AnyResult
from piip.serve.wanted import Answer, Wanted


def answer_of(result: AnyResult, wanted: Wanted, milliseconds: dict[str, float]) -> Answer:
    """A result in the form that was asked for; `milliseconds` of its parts go into the JSON."""
    result = _chosen(result, wanted)
    if wanted.format == "picture":
        return Answer(_encoded(PIL.Image.fromarray(result.plot()), "JPEG", quality=92), "image/jpeg")
    if wanted.format == "mask":
        assert isinstance(result, SegmentationResult)
        return Answer(_encoded(result.to_mask(), "PNG"), "image/png")
    if wanted.format == "coco":
        assert isinstance(result, Result)
        return Answer(json_text(result.to_coco(1)).encode(), "application/json")
    content: dict[str, Any] = result.to_dict()
    del content["path"]  # of nobody's disk
    if wanted.with_mask and isinstance(result, SegmentationResult):
        content["mask_png"] = base64.b64encode(_encoded(_label_picture(result.labels), "PNG")).decode()
    content["milliseconds"] = {name: round(value, 1) for name, value in milliseconds.items()}
    return Answer(json_text(content).encode(), "application/json")


def _chosen(result: AnyResult, wanted: Wanted) -> AnyResult:
    """The objects that count."""
    if not isinstance(result, Result):
        return result
    least: np.ndarray | float = wanted.conf
    if wanted.least_scores is not None:
        least = np.array(wanted.least_scores, np.float32)[result.labels.numpy()]
    kept = result.scores.numpy() >= least
    if wanted.classes is not None:
        kept &= np.isin(result.labels.numpy(), wanted.classes)
    return result if kept.all() else result[np.flatnonzero(kept).tolist()]


def _label_picture(labels: np.ndarray) -> PIL.Image.Image:
    """Labels [H, W] as RGB: label = red + 256 green, which browsers keep as they are, unlike 16-bit grey."""
    channels = [labels & 255, labels >> 8, np.zeros_like(labels)]
    return PIL.Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _encoded(picture: PIL.Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()
