"""What reading COCO images for training costs, beside the training step that they are for.

    python benchmarks/data.py --data COCO_FOLDER [--model NAME] [--images 50] [--cpu-time] [--step SECONDS]

Decode, resize, flip, normalise, rasterise and resize masks, collate: as training does it, one image per batch, in the
process itself. The step is taken to run at the roof: three times the model's multiply-adds over the rate of a
2048-cubed matrix product in the same run. No real step is that fast, so the printed share is an upper bound; with
`--step` it is that of a measured step. Medians over the images; the roof is measured between them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from piip import config, zoo
from piip.benchmark.machine import MATRIX
from piip.data.augmentation import Augmentation
from piip.data.batches import collate
from piip.data.decode import decode_image
from piip.data.detection.dataset import DetectionDataset
from piip.profile.measured import counts_of_parts
from piip.structures import Size
from piip.tasks import detection

MODEL = "piip_tsb_1120_896_448_mask_rcnn"
PASSES = 3
"""multiply-adds of forward and backward over those of the forward"""
Clock = Callable[[], float]


def step_gmacs(model: config.Model, size: Size) -> float:
    """Of forward and backward of the whole model on one image."""
    return PASSES * sum(count.macs for count in counts_of_parts(model, size).values()) / 1e9


def seconds(work: Callable[[], object], clock: Clock) -> float:
    began = clock()
    work()
    return clock() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine: CPU seconds of one thread")
    parser.add_argument("--step", type=float, help="seconds of a training step, if measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    clock = time.thread_time if arguments.cpu_time else time.perf_counter

    model = zoo.entry(arguments.model).config()
    opened = detection.open_split(arguments.data, "train")
    named = model.model_copy(update={"classes": opened.classes, "category_ids": opened.category_ids})
    dataset: DetectionDataset = detection.training_set(named, opened, Augmentation(), seed=0)
    a = torch.randn(MATRIX, MATRIX)
    torch.matmul(a, a)
    whole, decoding, roofs, areas = [], [], [], []
    for position in range(min(arguments.images, len(dataset))):
        batches = []

        def read(position: int = position, batches: list[object] = batches) -> None:
            batches.append(collate([dataset[0, position]], model.preprocess.pad_multiple))

        path = opened.images[dataset.indices[position]].path
        decoding.append(seconds(lambda path=path: decode_image(path), clock))  # type: ignore[misc]
        whole.append(seconds(read, clock))
        areas.append(tuple(batches[0].images.shape[-2:]))  # type: ignore[attr-defined]
        if position % 5 == 0:
            roofs.append(MATRIX**3 / 1e9 / min(seconds(lambda: torch.matmul(a, a), clock) for _ in range(2)))
    roof = statistics.median(roofs)
    size = statistics.mode(areas)
    gmacs = step_gmacs(model, size)
    step = arguments.step or gmacs / roof
    decoded, median, mean = (1e3 * value for value in (statistics.median(decoding), statistics.median(whole),
                                                       statistics.mean(whole)))  # fmt: skip
    print(f"{len(whole)} images, {torch.get_num_threads()} threads; milliseconds: decoding {decoded:.1f}, all of it "
          f"{median:.1f}, mean {mean:.1f}")  # fmt: skip
    print(f"a step of {arguments.model} at {size[0]} x {size[1]}: {gmacs:.0f} G multiply-adds, {step:.1f} s "
          f"{'measured' if arguments.step else f'at the roof of {roof:.1f} G/s'}")  # fmt: skip
    print(f"share of the step: {statistics.mean(whole) / step:.2%}")


if __name__ == "__main__":
    main()
