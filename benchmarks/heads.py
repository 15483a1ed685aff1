"""What Mask R-CNN costs after the backbone: neck, RPN and heads per multiply-add, and the pasting of 100 masks.

    python benchmarks/heads.py [--model NAME] [--rounds 5] [--threads 2] [--cpu-time] [--roi] [--direct]

A photo of 640 x 480 (noise), resized and padded as the model's recipe says; random weights, one class raised over the
threshold, so that as many proposals and masks are computed as the counts assume. Time per multiply-add of everything
after the maps over that of the backbone; `--roi` compares RoIAlign and its gradient with torchvision's and ends; with
`--direct` 3x3 convolutions are computed (and counted) directly. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from piip import zoo
from piip.heads.mask_rcnn.mask import paste_masks
from piip.heads.mask_rcnn.roi import RoIAlign
from piip.inference import Winograd, fuse
from piip.lean.roi_align import RoIAlignByProducts
from piip.model import PIIPModel
from piip.prediction.predictor import Predictor
from piip.profile.measured import counts_of_parts

MODEL = "piip_tsb_1120_896_448_mask_rcnn"
PHOTO = (480, 640)
MASKS = 100
Clock = Callable[[], float]


def median_seconds(work: Callable[[], Any], clock: Clock, rounds: int) -> float:
    taken = []
    for _ in range(rounds + 1):
        began = clock()
        work()
        taken.append(clock() - began)
    return statistics.median(taken[1:])


def random_boxes(count: int, size: tuple[int, int], largest: float) -> Tensor:
    limits = torch.tensor([size[1], size[0]])
    side = (0.03 + torch.rand(count, 2) * largest) * limits
    corner = torch.rand(count, 2) * (limits - side)
    return torch.cat((corner, corner + side), dim=1)


def head_seconds(model: PIIPModel, image: Tensor, clock: Clock, rounds: int) -> dict[str, float]:
    """Of the parts, each on the outputs of the one before it."""
    head, size = model.head, (image.shape[-2], image.shape[-1])
    found: dict[str, Any] = {}

    def run(name: str, step: Callable[[], Any]) -> float:
        def keep() -> None:
            found[name] = step()

        return median_seconds(keep, clock, rounds)

    times = {"backbone": run("maps", lambda: model.backbone(image))}
    times["neck"] = run("levels", lambda: head.fpn(found["maps"]))
    levels = found["levels"]
    times["rpn"] = run("rpn", lambda: head.rpn(levels))
    anchors = head.rpn.anchors(levels)
    times["proposals"] = run("found", lambda: head.rpn.proposals(*found["rpn"], anchors, [size], 1000))
    proposals = [boxes for boxes, _ in found["found"]]
    times["boxes"] = run("boxes", lambda: head.box.predict(levels, proposals, [size], [size]))
    boxes, _, labels = found["boxes"][0]
    times["masks"] = run("masks", lambda: head.mask.predict(levels, [boxes], [labels]))
    print(f"{len(proposals[0])} proposals, {len(boxes)} masks")
    return times


def compare_roi_align(clock: Clock, rounds: int) -> None:
    level = torch.randn(1, 256, 280, 280).contiguous(memory_format=torch.channels_last)
    boxes = random_boxes(1000, (1120, 1120), 0.1)
    rois = torch.cat((torch.zeros(1000, 1), boxes), dim=1)
    for resolution in (7, 14):
        kinds = {"products": RoIAlignByProducts(resolution), "torchvision's": RoIAlign(resolution)}
        for kind, module in kinds.items():
            forward = median_seconds(lambda align=module.align: align(level, rois, 4), clock, rounds)  # type: ignore[misc]
            back = gradient_seconds(module, level, rois, clock, rounds)
            print(f"RoIAlign of 1000 regions to {resolution}, {kind}: {forward:.3f} s, gradient {back:.3f} s")


def gradient_seconds(module: RoIAlign, level: Tensor, rois: Tensor, clock: Clock, rounds: int) -> float:
    trained = level.clone().requires_grad_()
    aligned = module.align(trained, rois, 4)
    toward = torch.randn_like(aligned)
    return median_seconds(lambda: torch.autograd.grad(aligned, trained, toward, retain_graph=True), clock, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine: CPU seconds of one thread")
    parser.add_argument("--roi", action="store_true", help="only RoIAlign against torchvision's")
    parser.add_argument("--direct", action="store_true", help="3x3 convolutions with all their multiply-adds")
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    torch.manual_seed(0)

    if arguments.roi:
        compare_roi_align(clock, arguments.rounds)
        return
    with torch.inference_mode():
        boxes = random_boxes(MASKS, PHOTO, 0.9)
        pasting = median_seconds(lambda: paste_masks(torch.rand(MASKS, 28, 28), boxes, PHOTO), clock, arguments.rounds)
        print(f"pasting {MASKS} masks into {PHOTO[1]} x {PHOTO[0]}: {pasting:.3f} s")
    original = PIIPModel(zoo.entry(arguments.model).config())
    with torch.no_grad():
        original.head.box.scores.bias[0] += 5
    predictor = Predictor(original, "cpu")
    image = predictor._batch([np.random.default_rng(0).integers(0, 255, (*PHOTO, 3), dtype=np.uint8)]).images
    winograd: Winograd = "nowhere" if arguments.direct else "everywhere"
    model = fuse(original, share=True, winograd=winograd)
    with torch.inference_mode():
        times = head_seconds(model, image, clock, arguments.rounds)
    counts = counts_of_parts(
        original.config,
        (image.shape[-2], image.shape[-1]),
        folded=True,
        winograd=winograd,
    )
    after = sum(count.macs for part, count in counts.items() if part in ("neck", "head")) / 1e9
    before = sum(count.macs for count in counts.values()) / 1e9 - after
    print(f"{arguments.model} on {image.shape[-1]} x {image.shape[-2]}, {torch.get_num_threads()} threads, folded")
    for part, taken in times.items():
        print(f"{part:10} {taken:7.3f} s")
    spent = sum(times.values()) - times["backbone"]
    ratio = (spent / after) / (times["backbone"] / before)
    print(f"after the maps: {spent:.2f} s for {after:.1f} G multiply-adds; backbone {before:.1f} G; "
          f"time per multiply-add over the backbone's: {ratio:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
