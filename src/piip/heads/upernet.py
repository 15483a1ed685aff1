"""UperNet (Xiao et al. 2018): four maps -> one map of class logits, with an auxiliary head for training.

The semantics are those of the reference (mmsegmentation 0.27): resizes are bilinear without aligned corners, a
convolution is followed by BatchNorm and ReLU, and the loss is a mean over all pixels, ignored ones included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from piip import config
from piip.structures import IGNORED, Batch, Prediction, Size, size_of

Backbone = Callable[[Tensor], list[Tensor]]

WINNERS_AT_ONCE = 2**26
"""values at full size in memory at one time"""


class UperNetHead(nn.Module):
    """Maps of `in_channels` (finest first) -> losses or a label for every pixel."""

    class_weights: Tensor | None

    def __init__(self, head: config.UperNet, in_channels: Sequence[int], classes: int, smallest_image: int = 1) -> None:
        """`smallest_image`: side in pixels that the backbone needs, which narrower images keep of their padding."""
        super().__init__()
        self.config = head
        self.smallest_image = smallest_image
        self.decoder = Decoder(head, in_channels, classes)
        self.auxiliary: nn.Sequential | None = None
        if head.auxiliary_channels is not None:
            width = in_channels[head.auxiliary_map]
            conv = conv_norm_relu(width, head.auxiliary_channels, kernel=3)
            self.auxiliary = nn.Sequential(conv, *_classifier(head.auxiliary_channels, classes, head.dropout))
        self.register_buffer("class_weights", None, persistent=False)  # part of the config already
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Set the buffers that no file holds; also after the head was built on the meta device and then filled."""
        weights = self.config.class_weights
        self.class_weights = None if weights is None else torch.tensor(weights)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Class logits [B, K, h, w] at the size of the finest map."""
        logits: Tensor = self.decoder(features)
        return logits

    def loss(self, features: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """`loss_seg` and `loss_aux`, weights included. A target is a label map [H, W] of its image without padding."""
        labels = padded_labels(batch.targets, size_of(batch.images))
        losses = {"loss_seg": self._cross_entropy(self(features), labels)}
        if self.auxiliary is not None:
            logits = self.auxiliary(features[self.config.auxiliary_map])
            losses["loss_aux"] = self.config.auxiliary_weight * self._cross_entropy(logits, labels)
        return losses

    def predict(
        self, backbone: Backbone, images: Tensor, image_sizes: list[Size], original_sizes: list[Size]
    ) -> list[Prediction]:
        """`labels` [H, W] int64 and `probabilities` [K, H, W] float32 of each image at its original size."""
        results = []
        for one, size in zip(self.logits(backbone, images, image_sizes), original_sizes, strict=True):
            probabilities = resize(one[None], size)[0].softmax(dim=0)
            results.append({"labels": probabilities.argmax(dim=0), "probabilities": probabilities})
        return results

    def segment(
        self, backbone: Backbone, images: Tensor, image_sizes: list[Size], original_sizes: list[Size]
    ) -> list[Prediction]:
        """As `predict`, with the winning class's probability `scores` [H, W] instead of all `probabilities`.

        So large photos and many classes need no memory for all of them at once.
        """
        logits = self.logits(backbone, images, image_sizes)
        return [winners(one, size) for one, size in zip(logits, original_sizes, strict=True)]

    def logits(self, backbone: Backbone, images: Tensor, image_sizes: list[Size]) -> list[Tensor]:
        """Class logits [K, h, w] float32 of each image without its padding, from the whole image or from windows."""
        if self.config.window is None:
            whole = resize(self(backbone(images)).float(), size_of(images))
            return [one[:, :height, :width] for one, (height, width) in zip(whole, image_sizes, strict=True)]
        least, results = self.smallest_image, []
        for image, (height, width) in zip(images, image_sizes, strict=True):
            own = image[:, : max(height, least), : max(width, least)]
            results.append(self._slide(backbone, own, self.config.window, at_once=len(images))[:, :height, :width])
        return results

    def _slide(self, backbone: Backbone, image: Tensor, window: int, at_once: int) -> Tensor:
        """Logits [K, H, W] of an image [3, H, W]: the mean over the windows that cover a pixel."""
        size = size_of(image)
        corners = window_corners(size, window, self.config.window_stride)
        height, width = min(window, size[0]), min(window, size[1])
        summed: Tensor | None = None
        count = image.new_zeros(size, dtype=torch.float32)
        for start in range(0, len(corners), at_once):
            some = corners[start : start + at_once]
            crops = torch.stack([image[:, top : top + height, left : left + width] for top, left in some])
            for logits, (top, left) in zip(resize(self(backbone(crops)).float(), (height, width)), some, strict=True):
                if summed is None:
                    summed = logits.new_zeros(len(logits), *size)
                summed[:, top : top + height, left : left + width] += logits
                count[top : top + height, left : left + width] += 1
        assert summed is not None
        return summed / count

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over the annotated pixels, divided by the number of all pixels, as the reference does."""
        logits = resize(logits.float(), size_of(labels))
        each = F.cross_entropy(logits, labels, self.class_weights, ignore_index=IGNORED, reduction="none")
        return each.mean()


class Decoder(nn.Module):
    """Pyramid pooling on the coarsest map, top-down additions, and the fusion of all levels."""

    def __init__(self, head: config.UperNet, in_channels: Sequence[int], classes: int) -> None:
        super().__init__()
        width, (*finer, coarsest) = head.channels, in_channels
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), conv_norm_relu(coarsest, width)) for bins in head.pool_bins
        )
        self.pooled = conv_norm_relu(coarsest + len(head.pool_bins) * width, width, kernel=3)
        self.laterals = nn.ModuleList(conv_norm_relu(channels, width) for channels in finer)
        self.smooth = nn.ModuleList(conv_norm_relu(width, width, kernel=3) for _ in finer)
        self.fuse = conv_norm_relu(len(in_channels) * width, width, kernel=3)
        self.classify = _classifier(width, classes, head.dropout)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps, finest first -> logits [B, K, h, w] at the size of the finest."""
        *finer, coarsest = features
        size = size_of(coarsest)
        context = [coarsest, *(resize(pool(coarsest), size) for pool in self.pools)]
        levels = [lateral(one) for lateral, one in zip(self.laterals, finer, strict=True)]
        levels.append(self.pooled(torch.cat(context, dim=1)))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], size_of(levels[i - 1]))
        smoothed = [smooth(level) for smooth, level in zip(self.smooth, levels[:-1], strict=True)]
        finest = size_of(levels[0])
        fused = self.fuse(torch.cat([resize(level, finest) for level in (*smoothed, levels[-1])], dim=1))
        logits: Tensor = self.classify(fused)
        return logits


class BatchNorm(nn.BatchNorm2d):
    """Where a batch has one value per channel (one image, pooled to one cell) there is no variance: the running one."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        if not self.training or x.shape[0] * x.shape[2] * x.shape[3] > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, BatchNorm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, BatchNorm(outputs), nn.ReLU(inplace=True))


def _classifier(channels: int, classes: int, dropout: float) -> nn.Sequential:
    last = nn.Conv2d(channels, classes, kernel_size=1)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Dropout2d(dropout), last)


def resize(maps: Tensor, size: Size) -> Tensor:
    """[B, C, h, w] to [B, C, *size], bilinear."""
    return maps if size_of(maps) == size else F.interpolate(maps, size, mode="bilinear", align_corners=False)


def winners(logits: Tensor, size: Size) -> Prediction:
    """The best class of each pixel and its probability at another size, a few classes at a time."""
    count = max(1, WINNERS_AT_ONCE // (size[0] * size[1]))
    best, labels, total = (logits.new_full(size, -torch.inf) for _ in range(3))
    for first in range(0, len(logits), count):
        some = resize(logits[None, first : first + count], size)[0]
        largest, which = some.max(dim=0)
        labels = torch.where(largest > best, which + first, labels)
        best = torch.maximum(best, largest)
        total = torch.logaddexp(total, some.logsumexp(dim=0))
    return {"labels": labels.long(), "scores": (best - total).exp()}


def padded_labels(targets: Sequence[Tensor], size: Size) -> Tensor:
    """Label maps [h, w] as one [B, *size] int64, ignored where the images were padded."""
    labels = targets[0].new_full((len(targets), *size), IGNORED, dtype=torch.int64)
    for row, target in zip(labels, targets, strict=True):
        row[: target.shape[0], : target.shape[1]] = target
    return labels


def window_corners(size: Size, window: int, stride: int) -> list[tuple[int, int]]:
    """(top, left) of the windows that cover an image of `size`; the last of a row or column ends at the border.

    >>> window_corners((512, 683), window=512, stride=341)
    [(0, 0), (0, 171)]
    """
    tops, lefts = (
        [min(i * stride, max(side - window, 0)) for i in range(max(side - window + stride - 1, 0) // stride + 1)]
        for side in size
    )
    return [(top, left) for top in tops for left in lefts]
