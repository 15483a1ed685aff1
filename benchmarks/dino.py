"""DINO against Mask R-CNN on the same backbone: time and memory of a training step and of a prediction.

    python benchmarks/dino.py [--rounds 3] [--batch 2] [--size 320] [--json FILE]
    python benchmarks/dino.py --forward piip_sbl_1792_1120_672_dino --size 1792

Both heads are of the published sizes (256 channels) on the nano DINO's backbone, with the same random images and ten
objects in each; fp32, one process. Seconds are CPU seconds of one thread, measured alternately, medians. Memory is the
growth of the process's resident size during one step, each in a fresh process. `--forward` measures one prediction of a
zoo model with random weights instead, seconds and the whole process's peak.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from piip import config, zoo
from piip.model import PIIPModel
from piip.structures import Batch, Instances

OBJECTS = 10
HEADS: dict[str, config.MaskRCNN | config.DINO] = {"Mask R-CNN": config.MaskRCNN(), "DINO": config.DINO()}


def build(name: str, size: int) -> PIIPModel:
    """The nano DINO's backbone with one of the heads."""
    base = zoo.entry("piip_nano_dino").config()
    preprocess = base.preprocess.model_copy(update={"long_side": size, "short_side": size})
    torch.manual_seed(0)
    return PIIPModel(base.model_copy(update={"head": HEADS[name], "preprocess": preprocess}))


def batch(images: int, size: int) -> Batch:
    """Random images with random objects, their masks all of the box."""
    torch.manual_seed(1)
    corners = torch.rand(images, OBJECTS, 2) * size * 0.6
    boxes = torch.cat((corners, corners + size * (0.1 + 0.3 * torch.rand(images, OBJECTS, 2))), dim=-1)
    line = torch.arange(size) + 0.5
    targets = []
    for own in boxes:
        x1, y1, x2, y2 = own[:, :, None].unbind(1)
        rows, columns = (line > y1) & (line < y2), (line > x1) & (line < x2)
        masks = (rows[:, :, None] & columns[:, None]).to(torch.uint8)
        targets.append(Instances(own, torch.randint(0, 80, (OBJECTS,)), masks))
    sizes = [(size, size)] * images
    return Batch(torch.randn(images, 3, size, size), sizes, sizes, targets, list(range(images)))


def train_step(model: PIIPModel, data: Batch) -> None:
    """Losses and gradients."""
    sum(model.loss(data).values()).backward()  # type: ignore[union-attr]
    model.zero_grad()


def seconds(name: str, model: PIIPModel, data: Batch) -> dict[str, float]:
    """CPU seconds of a training step and of a prediction."""
    began = time.thread_time()
    train_step(model.train(), data)
    middle = time.thread_time()
    with torch.inference_mode():
        model.eval().predict(data)
    return {"train": middle - began, "predict": time.thread_time() - middle}


def memory(name: str, images: int, size: int) -> float:
    """GB that a training step adds to the process, in a fresh one."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (name, images, size))


def _memory(name: str, images: int, size: int) -> float:
    torch.set_num_threads(1)
    model, data = build(name, size).train(), batch(images, size)
    before = _peak()
    train_step(model, data)
    return _peak() - before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def compare(rounds: int, images: int, size: int) -> dict[str, Any]:
    """Print and return the figures of both heads and their ratios."""
    torch.set_num_threads(1)
    gigabytes = {name: memory(name, images, size) for name in HEADS}
    models, data = {name: build(name, size) for name in HEADS}, batch(images, size)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in HEADS}
    for number in range(rounds + 1):
        for name, model in models.items():
            times = seconds(name, model, data)
            if number:  # the first warms up
                measured[name].append(times)
    rows: dict[str, Any] = {}
    print(f"{images} images of {size} x {size}, one thread, fp32")
    print(f"{'':12} {'M params':>9} {'train s':>9} {'predict s':>10} {'train GB':>9}")
    for name, times in measured.items():
        train, predict = (statistics.median(one[key] for one in times) for key in ("train", "predict"))
        millions = sum(parameter.numel() for parameter in models[name].parameters()) / 1e6
        rows[name] = {"params_m": millions, "train": train, "predict": predict, "train_gb": gigabytes[name]}
        print(f"{name:12} {millions:9.1f} {train:9.2f} {predict:10.2f} {gigabytes[name]:9.2f}")
    mask, dino = rows["Mask R-CNN"], rows["DINO"]
    rows["ratio"] = {key: dino[key] / mask[key] for key in mask}
    print("DINO over Mask R-CNN: " + ", ".join(f"{key} {value:.2f}" for key, value in rows["ratio"].items()))
    return rows


def forward(name: str, size: int) -> dict[str, float]:
    """Print and return seconds and peak memory of one prediction of a zoo model."""
    model = PIIPModel(zoo.entry(name).config()).eval()
    loaded = _peak()
    image = torch.randn(1, 3, size, size)
    began = time.perf_counter()
    with torch.inference_mode():
        (found,) = model.predict(Batch(image))
    figures = {"seconds": time.perf_counter() - began, "model_gb": loaded, "peak_gb": _peak()}
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{name}, {millions:.0f} M parameters, {size} x {size}, {len(found['scores'])} detections: "
          f"{figures['seconds']:.0f} s, peak {figures['peak_gb']:.2f} GB (model {loaded:.2f} GB)")  # fmt: skip
    return figures


def main() -> None:
    """Measure, print, optionally write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--forward", metavar="MODEL")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.forward:
        figures: Any = forward(arguments.forward, arguments.size)
    else:
        figures = compare(arguments.rounds, arguments.batch, arguments.size)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
