"""Small DINO models and batches for tests."""

from typing import Any

import torch
from tests.tiny import backbone

from piip import config
from piip.model import PIIPModel
from piip.structures import Batch, Instances

SMALL = {"channels": 64, "heads": 4, "points": 2, "encoder_layers": 1, "decoder_layers": 2, "ffn_channels": 32}


def head_config(**fields: Any) -> config.DINO:
    return config.DINO(**({**SMALL, "levels": 3, "queries": 10, "denoising_queries": 6, "detections": 7} | fields))


def tiny_model(classes: tuple[str, ...] = ("disc", "square", "star"), **fields: Any) -> PIIPModel:
    maps = config.FeatureMaps(strides=(8, 16, 32), unused_level=False)
    return PIIPModel(
        config.Model(
            name="tiny",
            backbone=backbone(2, maps=maps),
            head=head_config(**fields),
            classes=classes,
            preprocess=config.Preprocess(long_side=128, short_side=96, pad_multiple=32),
        )
    )


def instances(*boxes: tuple[float, float, float, float], labels: tuple[int, ...] | None = None) -> Instances:
    return Instances(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels or tuple(i % 3 for i in range(len(boxes)))).long()
    )


TWO = instances((10.0, 10, 60, 50), (30.0, 20, 90, 80))


def batch(*targets: Instances, size: tuple[int, int] = (96, 128)) -> Batch:
    sizes = [(size[0] - 6 * i, size[1] - 10 * i) for i in range(len(targets))]
    return Batch(torch.randn(len(targets), 3, *size), sizes, sizes, list(targets), list(range(len(targets))))
