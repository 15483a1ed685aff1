"""The parameter-inverted image pyramid: one image, one resolution per branch (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from piip.structures import View


def image_pyramid(images: Tensor, sizes: Sequence[int], views: Sequence[View | None] = ()) -> list[Tensor]:
    """Resize a batch [B, 3, H, W] of the finest branch's resolution to that of every branch.

    `sizes` are the branches' nominal sides, finest first; only their ratios to the first matter, so that H and W are
    free. Branch i gets about H * sizes[i] / sizes[0] rows, of `images` or of its own view.
    """
    seen = [images if view is None else view.images for view in views or [None] * len(sizes)]
    return [
        image if size == sizes[0] else _shrink(image, size / sizes[0]) for image, size in zip(seen, sizes, strict=True)
    ]


def _shrink(images: Tensor, ratio: float) -> Tensor:
    # The factor itself, not the rounded output size, sets the sampling positions: the released models were trained
    # so, and `size=` gives other numbers whenever H * ratio is not whole. No antialiasing either.
    return F.interpolate(images, scale_factor=ratio, mode="bilinear", align_corners=False)
