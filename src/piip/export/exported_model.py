"""An exported graph in the model's place: batches in, predictions out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip import config
from piip.config import UperNet
from piip.export.description import Description
from piip.export.runtime import Runtime
from piip.heads.mask_rcnn.boxes import scale_boxes
from piip.heads.mask_rcnn.mask import paste_masks
from piip.heads.upernet.labels import winners
from piip.heads.upernet.windows import whole_or_in_windows
from piip.structures import Batch, Prediction, Size, size_of


class ExportedModel(nn.Module):
    """What a `Predictor` asks of a model, answered by a runtime: `config` and `predict`. It holds no weights."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime, self.description = runtime, runtime.description
        self.config = padded_config(runtime.description)
        finish = {"detection": self._objects, "segmentation": self._labels, "classification": self._probabilities}
        self._finish = finish[self.config.task]

    def outputs(self, images: Tensor, image_sizes: list[Size] | None = None) -> dict[str, Tensor]:
        """The graph's own outputs for images [B, 3, h, w], no larger than it takes, any number of them.

        `image_sizes`: their parts that are not padding; None: all of them.
        """
        height, width = self.description.size
        if images.shape[-2] > height or images.shape[-1] > width:
            raise ValueError(f"images of {tuple(images.shape[-2:])} pixels; this graph takes {height} x {width}")
        sizes = image_sizes or [size_of(images)] * len(images)
        padded = F.pad(images.float(), (0, width - images.shape[-1], 0, height - images.shape[-2]))
        step = len(images) if self.description.dynamic else self.description.batch
        parts = [
            self._run(padded[start : start + step], sizes[start : start + step], step)
            for start in range(0, len(images), step)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in self.description.outputs}

    def _run(self, images: Tensor, sizes: list[Size], batch: int) -> dict[str, Tensor]:
        """A batch, filled up with empty images, whose outputs are left out again."""
        missing = batch - len(images)
        limits = torch.tensor([*sizes, *[self.description.size] * missing], dtype=torch.float32)
        given = {"images": F.pad(images, (0, 0, 0, 0, 0, 0, 0, missing)), "sizes": limits}
        found = self.runtime.run({name: given[name] for name in self.description.inputs})
        return {name: value[: len(images)] for name, value in found.items()}

    def predict(self, batch: Batch) -> list[Prediction]:
        """The prediction for each image, as the model's own head gives it."""
        if self.description.part == "backbone":
            raise ValueError("this file holds a backbone, which predicts nothing; use `maps`")
        return self._finish(batch) if len(batch.images) else []

    def logits(self, batch: Batch) -> list[Tensor]:
        """A segmentor's class logits [K, h, w] of each image without its padding."""
        head = self.config.head
        assert isinstance(head, UperNet)
        least = self.config.backbone.smallest_image
        return whole_or_in_windows(self._padded_logits, self._within(batch), head, least)

    def _padded_logits(self, images: Tensor) -> Tensor:
        """Of images no larger than the graph's; cut to their own part, in whole pixels of the image."""
        logits = self.outputs(images)["logits"]
        height, width = size_of(images)
        if (height, width) == self.description.size:
            return logits
        large = F.interpolate(logits, size=self.description.size, mode="bilinear", align_corners=False)
        return large[:, :, :height, :width]

    def _within(self, batch: Batch) -> Batch:
        """The batch cut to what the graph takes, where there are no windows."""
        if self.description.slides:
            return batch
        height, width = self.description.size
        return Batch(batch.images[:, :, :height, :width], batch.image_sizes, batch.original_sizes)

    def _objects(self, batch: Batch) -> list[Prediction]:
        height, width = self.description.size
        found = self.outputs(batch.images[:, :, :height, :width], batch.image_sizes)
        results = []
        for image, (size, original) in enumerate(zip(batch.image_sizes, batch.original_sizes, strict=True)):
            scores = found["scores"][image]
            kept = (scores > 0) & (scores >= batch.least_score)
            boxes = scale_boxes(found["boxes"][image][kept], size, original)
            result = {"boxes": boxes, "scores": scores[kept], "labels": found["labels"][image][kept]}
            if "masks" in found:
                masks = found["masks"][image][kept]
                if batch.paste_masks:
                    result["masks"] = paste_masks(masks, boxes, original)
                else:
                    result["mask_probabilities"] = masks
            results.append(result)
        return results

    def _labels(self, batch: Batch) -> list[Prediction]:
        each = zip(self.logits(batch), batch.original_sizes, strict=True)
        return [winners(logits, size) for logits, size in each]

    def _probabilities(self, batch: Batch) -> list[Prediction]:
        return [{"probs": probs} for probs in self.outputs(batch.images)["logits"].softmax(dim=1)]


def padded_config(description: Description) -> config.Model:
    """The model's config, with images padded to a square that holds what the graph takes (or as windows need it)."""
    model = description.config
    if model.task == "classification" or description.slides:
        return model
    side = max(description.size)
    return model.model_copy(update={"preprocess": model.preprocess.model_copy(update={"pad_multiple": side})})
