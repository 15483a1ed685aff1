"""Windows over an image, and the mean of what they say."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from piip import config
from piip.backbone.merge import resize
from piip.structures import Batch, Size, size_of


def whole_or_in_windows(
    decoded: Callable[[Tensor], Tensor], batch: Batch, head: config.UperNet, least: int
) -> list[Tensor]:
    """Class logits [K, h, w] float32 of each image without its padding, from the whole image or from windows.

    `decoded` images [B, 3, h, w] are logits [B, K, *, *] at any size; `least`: side that they need of their padding.
    """

    def logits_of(images: Tensor) -> Tensor:
        return resize(decoded(images).float(), size_of(images))

    if head.window is None:
        each = zip(logits_of(batch.images), batch.image_sizes, strict=True)
        return [logits[:, :height, :width] for logits, (height, width) in each]
    if batch.views:
        raise ValueError(f"branches with views of their own see whole tiles, not windows of {head.window} pixels in "
                         "them: leave out windows (use_windows(None), --window 0) or views")  # fmt: skip
    results = []
    for image, (height, width) in zip(batch.images, batch.image_sizes, strict=True):
        own = image[:, : max(height, least), : max(width, least)]
        logits = slide(logits_of, own, head.window, head.window_stride, at_once=len(batch.images))
        results.append(logits[:, :height, :width])
    return results


def slide(logits_of: Callable[[Tensor], Tensor], image: Tensor, window: int, stride: int, at_once: int) -> Tensor:
    """Logits [K, H, W] of an image [3, H, W]: the mean over the windows that cover a pixel.

    `logits_of` up to `at_once` windows [B, 3, h, w], no larger than the image, are [B, K, h, w].
    """
    size = size_of(image)
    corners = window_corners(size, window, stride)
    height, width = min(window, size[0]), min(window, size[1])
    summed: Tensor | None = None
    count = image.new_zeros(size, dtype=torch.float32)
    for start in range(0, len(corners), at_once):
        some = corners[start : start + at_once]
        crops = torch.stack([image[:, top : top + height, left : left + width] for top, left in some])
        for logits, (top, left) in zip(logits_of(crops), some, strict=True):
            if summed is None:
                summed = logits.new_zeros(len(logits), *size)
            summed[:, top : top + height, left : left + width] += logits
            count[top : top + height, left : left + width] += 1
    assert summed is not None
    return summed / count


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
