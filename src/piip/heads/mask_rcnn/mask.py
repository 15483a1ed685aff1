"""The mask head: which pixels of a detected box belong to the object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from piip import config, processes
from piip.data.object_masks import Crop, Masks
from piip.heads.mask_rcnn.matching import Sample
from piip.heads.mask_rcnn.roi import STRIDES, RoIAlign, cell_averages
from piip.structures import Instances, Prediction, Size

RESOLUTION = 14
MASK_SIDE = 28
THRESHOLD = 0.5


class MaskHead(nn.Module):
    """Convolutions on the 14x14 region, one transposed convolution to 28x28, one mask per class."""

    def __init__(self, head: config.MaskRCNN, classes: int, strides: Sequence[float] = STRIDES) -> None:
        super().__init__()
        self.align = RoIAlign(RESOLUTION, strides)
        channels = head.channels
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(head.mask_convs))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = ClassMasks(channels, classes, kernel_size=1)
        for layer in (*self.convs, self.upsample, self.logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Logits [N, classes, 28, 28] of all images' boxes."""
        return self.logits(self._hidden(levels, boxes)).float()

    def _hidden(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """[N, C, 28, 28] before the classes."""
        return self._upsampled(self.align(levels, boxes))

    def _upsampled(self, hidden: Tensor) -> Tensor:
        """Regions [N, C, 14, 14] -> [N, C, 28, 28]."""
        for conv in self.convs:
            hidden = F.relu(conv(hidden), inplace=True)
        return F.relu(self.upsample(hidden), inplace=True)

    def loss(
        self, levels: list[Tensor], boxes: list[Tensor], samples: list[Sample], targets: list[Instances]
    ) -> dict[str, Tensor]:
        """`loss_mask`: binary cross-entropy of the true class's mask, a mean over all processes' positives' cells."""
        positives = [box[: len(chosen.positive)] for box, chosen in zip(boxes, samples, strict=True)]
        labels = torch.cat([target.labels[chosen.objects] for chosen, target in zip(samples, targets, strict=True)])
        logits = self(levels, positives)
        share = len(labels) / processes.mean_count(len(labels), logits.device, least=1)
        if len(labels) == 0:
            return {"loss_mask": logits.sum() * 0}
        wanted = torch.cat(
            [
                mask_targets(box, chosen.objects, target)
                for box, chosen, target in zip(positives, samples, targets, strict=True)
            ]
        )
        own_class = logits[torch.arange(len(labels), device=labels.device), labels]
        return {"loss_mask": F.binary_cross_entropy_with_logits(own_class, wanted) * share}

    @torch.no_grad()
    def predict(self, levels: list[Tensor], boxes: list[Tensor], labels: list[Tensor]) -> list[Tensor]:
        """Per image: probabilities [N, 28, 28] inside `boxes`, which are in pixels of the network's input."""
        label = torch.cat(labels)
        own_class = self.logits(self._hidden(levels, boxes), label).sigmoid()
        return list(own_class.split([len(box) for box in boxes]))

    def dry_run(self, count: int) -> None:
        """What the masks of `count` boxes cost, on the meta device."""
        region = torch.empty(count, self.upsample.in_channels, RESOLUTION, RESOLUTION, device="meta")
        self.logits(self._upsampled(region), torch.zeros(count, dtype=torch.long, device="meta"))


class ClassMasks(nn.Conv2d):
    """A 1x1 convolution to one mask per class, of which on request only one is computed."""

    def forward(self, hidden: Tensor, label: Tensor | None = None) -> Tensor:
        """Regions [N, C, h, w] -> [N, classes, h, w], or [N, h, w] float32 for the class `label` [N] of each."""
        if label is None:
            return super().forward(hidden)
        assert self.bias is not None
        cells = hidden.permute(0, 2, 3, 1).flatten(1, 2)  # [N, h * w, C]
        weight, bias = self.weight[label, :, 0, 0].to(hidden.dtype), self.bias[label]
        logits = torch.bmm(cells, weight[:, :, None])[:, :, 0].float() + bias[:, None]
        return logits.unflatten(1, hidden.shape[-2:])


def mask_targets(boxes: Tensor, objects: Tensor, target: Instances) -> Tensor:
    """What the head should say inside `boxes` [P, 4]: [P, 28, 28] of 0 and 1, from the objects' masks.

    RoIAlign of the object's mask, then >= 0.5. RoIAlign of a single channel is a product of an average down and an
    average across, which reads a large box 10 times faster than `roi_align`.
    """
    assert target.masks is not None  # `heads.targets` has seen to that
    height, width = target.masks.shape[-2:]
    boxes = boxes.float()
    wanted = boxes.new_zeros((len(boxes), MASK_SIDE, MASK_SIDE))
    if len(boxes) == 0:
        return wanted
    down = cell_averages(boxes[:, 1], boxes[:, 3], height, MASK_SIDE)
    across = cell_averages(boxes[:, 0], boxes[:, 2], width, MASK_SIDE)
    with torch.autocast(boxes.device.type, enabled=False):
        for i, (index, box) in enumerate(zip(objects.tolist(), boxes.tolist(), strict=True)):
            # One mask is read at a time, and only under its box: float copies of 300 masks would not fit.
            rows, columns = _reach(box, (height, width))
            pixels = target.masks[index, rows, columns].float()
            wanted[i] = down[i, :, rows] @ pixels @ across[i, :, columns].T
    return (wanted >= 0.5).float()


def paste_masks(probabilities: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Masks [N, H, W] bool of an image of `size`, from probabilities [N, 28, 28] inside `boxes` [N, 4] in its pixels.

    Each mask is sampled bilinearly at the centres of the pixels, zero outside its box.
    """
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool, device=boxes.device)
    for mask, (pixels, rows, columns) in zip(masks, pasted(probabilities, boxes, size), strict=True):
        mask[rows, columns] = pixels
    return masks


def pasted(probabilities: Tensor, boxes: Tensor, size: Size) -> Iterator[tuple[Tensor, slice, slice]]:
    """One mask of `paste_masks` after the other: its pixels [h, w] bool and the rows and columns that they are."""
    for probability, box in zip(probabilities.float(), boxes.tolist(), strict=True):
        x1, y1, x2, y2 = box
        if x2 <= x1 or y2 <= y1:
            yield torch.zeros((0, 0), dtype=torch.bool, device=boxes.device), slice(0, 0), slice(0, 0)
            continue
        rows, columns = _reach(box, size)
        down, across = _bilinear(rows, y1, y2, boxes.device), _bilinear(columns, x1, x2, boxes.device)
        with torch.autocast(boxes.device.type, enabled=False):
            mask = down @ probability @ across.T >= THRESHOLD
        yield mask, rows, columns


def kept_masks(prediction: Prediction, size: Size) -> Masks | None:
    """The masks of a prediction for an image of `size` as run lengths; None where it has none.

    Where a batch was not to `paste_masks`, no more than one mask is ever in memory with all its pixels.
    """
    dense, probabilities = prediction.get("masks"), prediction.get("mask_probabilities")
    if dense is not None:
        return Masks.of(dense.detach())
    if probabilities is None:
        return None
    found = pasted(probabilities.detach(), prediction["boxes"].detach(), size)
    crops = (Crop(pixels.cpu().numpy(), rows.start, columns.start) for pixels, rows, columns in found)
    return Masks.of_crops(crops, size)


def _bilinear(pixels: slice, start: float, end: float, device: torch.device) -> Tensor:
    """[len(pixels), 28]: weights of the 28 cells between `start` and `end` at the centre of each pixel."""
    centres = torch.arange(pixels.start, pixels.stop, dtype=torch.float32, device=device) + 0.5
    position = (centres - start) * (MASK_SIDE / (end - start)) - 0.5
    return (1 - (position[:, None] - torch.arange(MASK_SIDE, device=device)).abs()).clamp(min=0)


def _reach(box: Sequence[float], size: Size) -> tuple[slice, slice]:
    """The rows and columns of an image that take part in a box's samples."""
    x1, y1, x2, y2 = box
    rows = _clipped(int(y1) - 1, int(y2) + 2, size[0])
    return rows, _clipped(int(x1) - 1, int(x2) + 2, size[1])


def _clipped(start: int, end: int, length: int) -> slice:
    start = min(max(0, start), length)
    return slice(start, min(max(start, end), length))
