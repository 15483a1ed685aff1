"""The backbone as a feature extractor in somebody's own PyTorch code."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from piip.backbone.piip import PIIPBackbone


class FeatureExtractor(nn.Module):
    """Maps of images of any size, as other libraries expect them of a backbone.

    Images are padded with zeros at the right and below where a map's cells would not cover them, and the maps are as
    large as it takes to cover the image: of ceil(H / r) x ceil(W / r) cells at reduction r.

    Attributes:
        backbone: the pyramid, `config` its description.
        feature_info: of each map, finest first, {"num_chs", "reduction", "module"}, as timm has it.
        out_channels: channels of every map where all are alike, as torchvision's detectors ask for; else a tuple.
    """

    def __init__(self, backbone: PIIPBackbone) -> None:
        super().__init__()
        described = backbone.config
        if described.maps is None:
            raise ValueError("a backbone without maps has no features to give; describe it with `maps`")
        self.backbone = backbone
        pairs = zip(described.map_widths, described.map_strides, strict=True)
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": width, "reduction": int(stride), "module": f"map{index}"}
            for index, (width, stride) in enumerate(pairs)
        ]
        widths = tuple(described.map_widths)
        self.out_channels: int | tuple[int, ...] = widths[0] if len(set(widths)) == 1 else widths

    @property
    def reductions(self) -> tuple[int, ...]:
        """Pixels per cell of each map, finest first."""
        return tuple(info["reduction"] for info in self.feature_info)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W], normalised as the branches' weights expect -> maps [B, C, h, w], finest first."""
        height, width = images.shape[-2:]
        coarsest, least = self.reductions[-1], self.backbone.config.smallest_image
        padded = [max(math.ceil(side / coarsest) * coarsest, least) for side in (height, width)]
        if padded != [height, width]:
            images = F.pad(images, (0, padded[1] - width, 0, padded[0] - height))
        maps = self.backbone(images)
        return [
            one[..., : math.ceil(height / reduction), : math.ceil(width / reduction)]
            for one, reduction in zip(maps, self.reductions, strict=True)
        ]
