"""An exported file against the model it was made from, on real images, through everything that a user runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from piip.data.synthetic import make_scenes
from piip.export.exported import Exported
from piip.export.networks import network_of
from piip.model import PIIPModel
from piip.prediction.sources import Failure, Source, images_of, opened
from piip.structures import Batch, Prediction

GENERATED = 2
"""images that are made where none are given"""
MOST = 8
"""images that are looked at"""
LEAST_MATCHED = 0.98
"""share of the objects that both must find; at the edges of what is kept, rounding decides"""


class Limits(NamedTuple):
    """How far an exported file may be from its model."""

    logits: float
    """largest difference, over the largest logit where that is above 1"""
    score: float
    iou: float
    """of the boxes of one object"""
    mask_iou: float
    """mean over the objects"""


LIMITS = {False: Limits(1e-3, 1e-3, 0.99, 0.99), True: Limits(3e-2, 2e-2, 0.9, 0.95)}
"""with weights in single and in half precision, which rounds them by up to 1 in 2000"""


@dataclass
class Check:
    """The comparison: figures by name, and what is beyond the limits."""

    images: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """what the comparison could not see"""

    @property
    def passed(self) -> bool:
        """Whether everything is within the limits."""
        return not self.problems

    def least(self, name: str, value: float, limit: float) -> None:
        """Note a figure, of which the smallest over the images counts and must not be below `limit`."""
        self.figures[name] = min(self.figures.get(name, value), value)
        if not value >= limit:
            self.problems.append(f"{name} {value:.3g} is below {limit:g}")

    def most(self, name: str, value: float, limit: float) -> None:
        """Note a figure, of which the largest over the images counts and must not be above `limit`."""
        self.figures[name] = max(self.figures.get(name, value), value)
        if not value <= limit:
            self.problems.append(f"{name} {value:.3g} is above {limit:g}")

    @property
    def summary(self) -> str:
        """For the terminal."""
        figures = ", ".join(f"{name} {value:.3g}" for name, value in self.figures.items())
        return f"{self.images} images compared with the model: {figures}"


@torch.no_grad()
def check(model: PIIPModel, exported: Exported, images: Iterable[Source] | None = None) -> Check:
    """Compare on `images` (at most `MOST` of them are read), or on generated ones.

    `model`: in float32 on the CPU, in eval mode, not folded. Both get the same padded images.

    Raises:
        ValueError, FileNotFoundError: `images` hold no usable image.
    """
    report, described = Check(), exported.description
    limits = LIMITS[described.half]
    for pixels in _pixels(images):
        batch = _batch(exported, pixels)
        report.images += 1
        if described.part == "backbone":
            _compare_outputs(report, network_of(model, "backbone")(batch.images), exported, batch, limits)
        elif described.config.task == "detection":
            wanted, found = model.predict(batch)[0], exported.model.predict(batch)[0]
            _compare_objects(report, wanted, found, limits)
        else:
            _compare_outputs(report, (model(batch.images),), exported, batch, limits)
    if "objects" in report.figures and report.figures["objects"] == 0:
        report.notes.append("the model finds nothing on these images, so the comparison says little; give others")
    return report


def _pixels(images: Iterable[Source] | None) -> list[np.ndarray]:
    """RGB images, uint8 [H, W, 3]."""
    if images is None:
        return generated_images()
    found = []
    for source in list(images_of(images))[:MOST]:
        image = opened(source)
        if not isinstance(image, Failure):
            found.append(image.pixels.copy())
    if not found:
        raise ValueError("none of the images for the comparison can be read")
    return found


def generated_images(count: int = GENERATED) -> list[np.ndarray]:
    """Scenes of `piip.data.synthetic`, one wide and one high, in turns."""
    with tempfile.TemporaryDirectory(prefix="piip-check-") as folder:
        root = make_scenes(folder, train=count, val=1, size=(384, 512))
        files = sorted(Path(root).rglob("train*/*.png")) or sorted(Path(root).rglob("*.png"))
        scenes = [np.array(Image.open(file).convert("RGB")) for file in files[:count]]
    return [np.ascontiguousarray(scene.transpose(1, 0, 2)) if odd % 2 else scene for odd, scene in enumerate(scenes)]


def _batch(exported: Exported, pixels: np.ndarray) -> Batch:
    """One image as the graph takes it. What slides over images is shown the first window."""
    height, width = exported.description.size
    image = exported.predictor.transform(torch.from_numpy(pixels).permute(2, 0, 1))[:, :height, :width]
    size = (image.shape[1], image.shape[2])
    padded = torch.zeros(1, 3, height, width)
    padded[0, :, : size[0], : size[1]] = image
    return Batch(padded, image_sizes=[size], original_sizes=[pixels.shape[:2]])


def _compare_outputs(
    report: Check, wanted: tuple[Tensor, ...], exported: Exported, batch: Batch, limits: Limits
) -> None:
    """Logits or maps, as they come out of the graph."""
    found = exported.model.outputs(batch.images, batch.image_sizes)
    for (name, value), expected in zip(found.items(), wanted, strict=True):
        difference = (value - expected).abs().max() / expected.abs().max().clamp(min=1)
        report.most(f"difference of {name}", float(difference), limits.logits)
    if exported.config.task == "segmentation" and exported.description.part == "model":
        same = (found["logits"].argmax(1) == wanted[0].argmax(1)).float().mean()
        report.least("pixels of the same class", float(same), LEAST_MATCHED)


def _compare_objects(report: Check, wanted: Prediction, found: Prediction, limits: Limits) -> None:
    """Objects matched by class, IoU and score, in both directions; the masks of those that match."""
    report.figures["objects"] = report.figures.get("objects", 0) + len(wanted["boxes"])
    if len(wanted["boxes"]) == 0 and len(found["boxes"]) == 0:
        return
    same = wanted["labels"][:, None] == found["labels"]
    gap = (wanted["scores"][:, None] - found["scores"]).abs()
    iou = box_iou(wanted["boxes"], found["boxes"])
    fits = same & (gap <= limits.score) & (iou >= limits.iou)
    both = torch.cat((fits.any(1), fits.any(0)))
    report.least("objects that both find", float(both.float().mean()), LEAST_MATCHED)
    if not fits.any():
        return
    rows = fits.any(1).nonzero()[:, 0]
    partners = torch.where(fits, iou, -1.0)[rows].argmax(1)
    report.least("IoU of their boxes", float(iou[rows, partners].min()), limits.iou)
    report.most("difference of their scores", float(gap[rows, partners].max()), limits.score)
    if "masks" in wanted:
        report.least("IoU of their masks", _mask_iou(wanted["masks"][rows], found["masks"][partners]), limits.mask_iou)


def _mask_iou(wanted: Tensor, found: Tensor) -> float:
    """The mean over objects [N, H, W] bool."""
    common = (wanted & found).flatten(1).sum(1)
    either = (wanted | found).flatten(1).sum(1)
    return float(torch.where(either > 0, common / either.clamp(min=1), 1.0).mean())
