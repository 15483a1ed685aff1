"""Hundreds of objects in an image against a few: time of a training step and of a prediction, in one run.

    python benchmarks/crowds.py [--few 20] [--many 2000] [--size 1120] [--heads "Mask R-CNN,DINO"] [--denoising 0]

Heads of the published sizes (256 channels), without masks, on the nano DINO's backbone, told to find `--many` objects
for both; a random image with boxes of 10 to 40 pixels. CPU seconds of one thread, forward and backward, once each after
one step that is not counted.
"""

from __future__ import annotations

import argparse
import time

import torch

from piip import config, zoo
from piip.model import PIIPModel
from piip.structures import Batch, Instances

HEADS: dict[str, config.MaskRCNN | config.DINO] = {"Mask R-CNN": config.MaskRCNN(masks=False), "DINO": config.DINO()}


def build(name: str, size: int, detections: int, denoising: int | None = None) -> PIIPModel:
    base = zoo.entry("piip_nano_dino").config()
    preprocess = base.preprocess.model_copy(update={"long_side": size, "short_side": size})
    torch.manual_seed(0)
    head = HEADS[name].keeping(detections)
    if denoising is not None and isinstance(head, config.DINO):
        head = head.model_copy(update={"denoising_queries": denoising})
    model = PIIPModel(base.model_copy(update={"head": head, "preprocess": preprocess}))
    model.head.as_if_trained()
    return model


def batch(size: int, count: int) -> Batch:
    torch.manual_seed(1)
    centres, sides = torch.rand(count, 2) * (size - 40) + 20, 10 + 30 * torch.rand(count, 2)
    boxes = torch.cat((centres - sides / 2, centres + sides / 2), dim=1)
    targets = [Instances(boxes, torch.randint(0, 80, (count,)))]
    return Batch(torch.randn(1, 3, size, size), targets=targets)


def measured(model: PIIPModel, data: Batch) -> tuple[float, float, int]:
    """CPU seconds of a training step and of a prediction, and the objects that it found."""
    began = time.process_time()
    sum(model.train().loss(data).values()).backward()  # type: ignore[union-attr]
    model.zero_grad()
    middle = time.process_time()
    with torch.inference_mode():
        (found,) = model.eval().predict(data)
    return middle - began, time.process_time() - middle, len(found["boxes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--size", type=int, default=1120)
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--denoising", type=int, help="DINO's denoising queries; 0: none")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.heads.split(","):
        model = build(name, chosen.size, chosen.many, chosen.denoising)
        measured(model, batch(chosen.size, chosen.few))
        for count in (chosen.few, chosen.many):
            train, predict, found = measured(model, batch(chosen.size, count))
            print(f"{name}, {count} objects: {train:.1f} s a step, {predict:.1f} s a prediction ({found} found)")


if __name__ == "__main__":
    main()
