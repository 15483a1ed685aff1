"""Two processes, each with a part of a batch, against one with all of it: as a script, `one_batch.py RANK FOLDER`.

Prints the relative difference of the gradients of every case.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from types import SimpleNamespace

import torch
from tests import tiny
from torch import Tensor

from piip import config
from piip.data.batches import EpochSampler, collate
from piip.data.samples import Sample
from piip.model import PIIPModel
from piip.structures import Batch, Instances
from piip.training.loop import as_one
from piip.training.settings import Settings

CLASSES = ("disc", "square", "star")
DINO = {"channels": 64, "heads": 4, "points": 2, "encoder_layers": 1, "decoder_layers": 2, "ffn_channels": 32,
        "levels": 3, "queries": 10, "denoising_queries": 8, "detections": 7}  # fmt: skip
SIDES = ((96, 128), (64, 128), (128, 64), (96, 96), (40, 100))
OBJECTS = (3, 0, 7, 1, 2)


def model_of(head: config.Head, maps: config.FeatureMaps | None = None) -> PIIPModel:
    torch.manual_seed(0)
    backbone = tiny.backbone(2, maps=maps)
    if isinstance(head, config.Classifier):
        backbone = backbone.model_copy(update={"maps": None})
    short = 128 if isinstance(head, config.Classifier) else 96
    preprocess = config.Preprocess(long_side=128, short_side=short, pad_multiple=32)
    return PIIPModel(config.Model(name="tiny", backbone=backbone, head=head, classes=CLASSES, preprocess=preprocess))


def cases() -> dict[str, tuple[PIIPModel, str]]:
    rcnn = {"channels": 16, "fc_channels": 32, "mask_convs": 1, "rpn_batch": 32, "roi_batch": 16, "proposals": 60}
    upernet = {"channels": 16, "auxiliary_channels": 8, "dropout": 0.0, "pool_bins": (1, 2)}
    return {
        "mask_rcnn": (model_of(config.MaskRCNN(**rcnn)), "objects"),
        "dino": (model_of(config.DINO(**DINO), config.FeatureMaps(strides=(8, 16, 32), unused_level=False)), "objects"),
        "upernet": (model_of(config.UperNet(**upernet)), "labels"),
        "classifier": (model_of(config.Classifier(dropout=0.0)), "shares"),
    }


def sample(index: int, kind: str) -> Sample:
    draw = torch.Generator().manual_seed(index)
    height, width = (64, 64) if kind == "shares" else SIDES[index]
    image = torch.randn(3, height, width, generator=draw)
    target: Instances | Tensor
    if kind == "objects":
        count = OBJECTS[index]
        corners = torch.rand(count, 2, generator=draw) * torch.tensor([width - 30.0, height - 30.0])
        boxes = torch.cat((corners, corners + 12 + 16 * torch.rand(count, 2, generator=draw)), dim=1)
        masks = torch.zeros(count, height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1 : (x1 + x2) // 2] = 1
        target = Instances(boxes, torch.randint(3, (count,), generator=draw), masks)
    elif kind == "labels":
        target = torch.randint(-1, 3, (height, width), generator=draw)
    else:
        target = torch.rand(3, generator=draw).softmax(0)
    return Sample(image, target, (height, width), index)


def gradients(model: PIIPModel, batch: Batch) -> Tensor:
    model.zero_grad()
    torch.stack(list(model.loss(batch).values())).sum().backward()
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    )


def part(images: int, kind: str, rank: int, world: int) -> Batch:
    """What a process of so many makes of an epoch with one step."""
    [keys] = EpochSampler(images, 6 // world, 0, 0, rank=rank, world=world)
    accelerator = SimpleNamespace(num_processes=world, process_index=rank, device=torch.device("cpu"))
    at = SimpleNamespace(epoch=0, batch=0)
    run = SimpleNamespace(settings=Settings(batch_size=6 // world), at=at, accelerator=accelerator, images=images)
    return as_one(run, collate([sample(index, kind) for _, index in keys], 32))  # type: ignore[arg-type]


def statistics(model: PIIPModel) -> Tensor:
    return torch.cat(
        [buffer.flatten() for name, buffer in model.named_buffers() if "running" in name] + [torch.ones(1)]
    )


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    wholes = {}
    for images in (5, 1):
        for name, (model, kind) in cases().items():
            wholes[name, images] = gradients(model.train(), part(images, kind, 0, 1)), statistics(model)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    for images in (5, 1):
        for name, (model, kind) in cases().items():
            mine = gradients(model.train(), part(images, kind, rank, 2))
            torch.distributed.all_reduce(mine)
            whole, buffers = wholes[name, images]
            differences = ((mine / 2 - whole).norm() / whole.norm(), (statistics(model) - buffers).abs().max())
            print(name, images, *(f"{value.item():.1e}" for value in differences), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
