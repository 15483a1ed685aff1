"""Small models of every head, whose weights say something and which find something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests import tiny
from tests.inference.test_fold import build
from torch import Tensor
from torch.export import ExportedProgram
from typing_extensions import Self

from piip import config
from piip.export.description import Description
from piip.export.exported import Exported
from piip.export.networks import network_of
from piip.export.runtime import Runtime
from piip.inference import fuse
from piip.model import PIIPModel

SIDE = 64
HEADS: dict[str, config.Head] = {
    "mask_rcnn": config.MaskRCNN(
        channels=16, fc_channels=32, mask_convs=1, proposals=40, proposals_per_level_test=30, detections=8
    ),
    "one_class_each": config.MaskRCNN(
        channels=16,
        fc_channels=32,
        mask_convs=1,
        proposals=40,
        proposals_per_level_test=30,
        detections=8,
        masks=False,
        class_agnostic=True,
    ),
    "dino": config.DINO(
        channels=64, heads=2, levels=4, encoder_layers=1, decoder_layers=1, ffn_channels=32, queries=20, detections=10
    ),
    "upernet": config.UperNet(channels=16, auxiliary_channels=None, pool_bins=(1, 2)),
    "classifier": config.Classifier(separate_head=False),
}


def branch(size: int, width: int) -> config.Branch:
    return tiny.branch(size, width, depth=2, groups=((0, 0), (1, 1)), windows=(2, None))


def small(head: str) -> PIIPModel:
    """Two branches of two blocks, of which one has windows, on images of 64 pixels."""
    torch.manual_seed(0)
    backbone = config.Backbone(branches=(branch(64, 32), branch(32, 64)), interaction=tiny.interaction())
    model = build(backbone, HEADS[head])
    changed = {"long_side": SIDE, "short_side": SIDE}
    model.config = model.config.model_copy(
        update={"preprocess": model.config.preprocess.model_copy(update=changed), "name": f"small_{head}"}
    )
    model.head.as_if_trained()
    return model


class Eager(Runtime):
    """The network itself in a runtime's place, in PyTorch, with what a test does to its outputs."""

    suffix = ".eager"
    version = "eager"

    def __init__(
        self,
        model: PIIPModel,
        size: tuple[int, int] = (SIDE, SIDE),
        batch: int = 1,
        change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda outputs: outputs,
        **described: Any,
    ) -> None:
        self.network, self.change, self.batches = network_of(fuse(model, mode="export")), change, list[int]()
        self.description = Description(
            format="pt2",
            inputs=self.network.inputs,
            outputs=self.network.outputs,
            batch=batch,
            height=size[0],
            width=size[1],
            classes=model.config.classes,
            preprocess=model.config.preprocess,
            config=model.config,
            **described,
        )

    @torch.no_grad()
    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self.batches.append(len(inputs["images"]))
        assert tuple(inputs["images"].shape[-2:]) == self.description.size
        return self.change(dict(zip(self.description.outputs, self.network(*inputs.values()), strict=True)))

    @classmethod
    def require(cls) -> None: ...

    @classmethod
    def files(cls, path: Path) -> tuple[Path, ...]:
        return (path,)

    @classmethod
    def write(cls, program: ExportedProgram, description: Description, path: Path) -> None: ...

    @classmethod
    def open(cls, path: Path) -> Self:
        raise NotImplementedError


def eager(model: PIIPModel, **options: Any) -> Exported:
    return Exported(Path("model.eager"), Eager(model, **options))


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blotches, uint8 [H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
