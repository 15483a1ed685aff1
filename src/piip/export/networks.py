"""What is inside the graph: from padded images to raw outputs of fixed numbers, one module for each kind of head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from piip.backbone import PIIPBackbone
from piip.export.description import Part
from piip.export.detectors import DINODetector, MaskRCNNDetector
from piip.export.network import Network
from piip.model import PIIPModel


class LogitsNetwork(Network):
    """A segmentor's logits [B, K, h, w] or a classifier's [B, K]: the head's own output."""

    def __init__(self, model: PIIPModel) -> None:
        super().__init__()
        self.model = model
        self.outputs = ("logits",)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of images [B, 3, H, W]."""
        return (self.model(images),)


class MapsNetwork(Network):
    """A backbone's feature maps [B, C, h, w], finest first."""

    def __init__(self, backbone: PIIPBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.outputs = tuple(f"map_{stride:g}" for stride in backbone.config.map_strides)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of images [B, 3, H, W]."""
        return tuple(self.backbone(images))


KINDS: dict[str, type[Any]] = {
    "mask_rcnn": MaskRCNNDetector,
    "dino": DINODetector,
    "upernet": LogitsNetwork,
    "classifier": LogitsNetwork,
}


def network_of(model: PIIPModel, part: Part = "model") -> Network:
    """The network of a model of plain modules (see `inference.choice`), or of its backbone.

    Raises:
        ValueError: a backbone without maps.
    """
    network: Network
    if part == "model":
        network = KINDS[model.config.head.kind](model)
    elif model.backbone.maps is None:
        raise ValueError("a classifier's backbone has no feature maps; export the whole model")
    else:
        network = MapsNetwork(model.backbone)
    return _frozen(network)


def _frozen(network: Network) -> Network:
    module: nn.Module = network.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return network
